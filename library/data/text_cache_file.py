"""The file that holds the encoded captions of one image: its keys, and the fingerprint that tells whether it still fits."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from library.data.entry_file import EntryKind, digest

VERSION = 1  # of how captions are encoded; raised when they come out differently for the same settings
Arrays = dict[str, np.ndarray]  # one encoded caption, by the keys of its layout
KIND = EntryKind(
    "text encoder cache",
    "cache_text_encoder_outputs",
    {
        "version": "made by another version",
        "captions": "made from other captions",
        "encoder": "made with another text encoder",
        "tokenizer": "made with another tokenizer",
        "precision": "made with another mixed_precision",
        "clip_skip": "made with another clip_skip",
        "max_token_length": "made with another max_token_length",
        "weighted": "made with another weighted_captions",
    },
)


def entry_path(image: Path, suffix: str, distinction: str = "") -> Path:
    """`<stem><suffix>.npz` beside the image; `distinction` keeps apart what would share this name within one run."""
    return image.with_name(f"{image.stem}{distinction}{suffix}.npz")


def fingerprint_of(captions: Sequence[str], source: Mapping[str, Any]) -> str:
    """All that the arrays depend on, as readable JSON: the texts, and what they are encoded by."""
    return json.dumps({"version": VERSION, "captions": list(captions), **source}, sort_keys=True, ensure_ascii=False)


def key_of(key: str, number: int) -> str:
    """The first caption has the plain keys, which other tools read."""
    return f"{key}_variant{number}" if number else key


def write_entry(path: Path, captions: Sequence[Arrays], fingerprint: str) -> None:
    """Write an entry, whole or not at all."""
    arrays = {key_of(key, number): array for number, caption in enumerate(captions) for key, array in caption.items()}
    KIND.write(path, {"fingerprint": np.array(fingerprint), **arrays})


def read_entry(path: Path, number: int, keys: Sequence[str], fingerprint: str | None) -> Arrays:
    """The `number`-th caption of an entry. `fingerprint`: what it must still be made from; None trusts what is there."""
    with KIND.opened(path, None if fingerprint is None else digest(fingerprint)) as entry:
        return {key: entry[key_of(key, number)] for key in keys}
