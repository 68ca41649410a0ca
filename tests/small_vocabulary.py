"""A vocabulary for tokenizers of tiny models: CLIP's letters, and what it makes of a few words. It is read in a moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from library.families.tokenizers import VOCABULARY_FOLDER

LETTERS = 512  # the first entries of CLIP's vocabulary: each byte, inside a word and at its end
ENDS = ("<|startoftext|>", "<|endoftext|>")  # the last two entries of any vocabulary
WORDS = ("a", "an", "and", "cat", "dog", "frog", "green", "in", "of", "on", "one", "photo", "red", "sls", "small", "stone", "the", "toad", "wet")


def write_vocabulary(folder: Path, words: Sequence[str] = WORDS) -> int:
    """The files of a tokenizer that has each of the words as one entry; returns how many entries there are."""
    folder.mkdir(parents=True)
    known = json.loads((VOCABULARY_FOLDER / "vocab.json").read_text(encoding="utf-8"))
    merges = sorted({pair for word in words for pair in _merges_of(word)}, key=lambda pair: _ranks()[pair])
    letters = sorted((entry for entry, number in known.items() if number < LETTERS), key=lambda entry: known[entry])
    entries = [*letters, *("".join(pair) for pair in merges), *ENDS]
    (folder / "vocab.json").write_text(json.dumps({entry: number for number, entry in enumerate(entries)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(VOCABULARY_FOLDER / name, folder / name)
    return len(entries)


def entries_of_text(count: int) -> dict[str, int]:
    """What a text encoder's configuration says of a vocabulary of so many entries."""
    return {"vocab_size": count, "bos_token_id": count - 2, "eos_token_id": count - 1, "pad_token_id": count - 1}


@cache
def _ranks() -> dict[tuple[str, str], int]:
    lines = (VOCABULARY_FOLDER / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    return {(one, other): rank for rank, (one, other) in enumerate(line.split() for line in lines)}


def _merges_of(word: str) -> Iterator[tuple[str, str]]:
    """The pairs that become one on the way from the letters of a word to its only entry."""
    parts = [*word[:-1], f"{word[-1]}</w>"]
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: _ranks()[pair] if pair in _ranks() else len(_ranks()))
        yield best
        place = list(pairwise(parts)).index(best)
        parts[place : place + 2] = ["".join(best)]
