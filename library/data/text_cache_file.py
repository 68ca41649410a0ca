"""The file that holds the encoded captions of one image: its keys, and the fingerprint that tells whether it still fits."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from library.checkpoint.files import atomic_write
from library.data.cache_file import UNREADABLE, difference
from library.errors import UserError

VERSION = 1  # of how captions are encoded; raised when they come out differently for the same settings
Arrays = dict[str, np.ndarray]  # one encoded caption, by the keys of its layout
# What is wrong with an entry whose fingerprint differs in this part; the first that differs is named.
REASONS = {
    "version": "made by another version",
    "captions": "made from other captions",
    "encoder": "made with another text encoder",
    "tokenizer": "made with another tokenizer",
    "precision": "made with another mixed_precision",
    "clip_skip": "made with another clip_skip",
    "max_token_length": "made with another max_token_length",
    "weighted": "made with another weighted_captions",
}
ELSE = "use cache_text_encoder_outputs without cache_text_encoder_outputs_to_disk"


def entry_path(image: Path, suffix: str, distinction: str = "") -> Path:
    """`<stem><suffix>.npz` beside the image; `distinction` keeps apart what would share this name within one run."""
    return image.with_name(f"{image.stem}{distinction}{suffix}.npz")


def fingerprint_of(captions: Sequence[str], source: Mapping[str, Any]) -> str:
    """All that the arrays depend on, as readable JSON: the texts, and what they are encoded by."""
    return json.dumps({"version": VERSION, "captions": list(captions), **source}, sort_keys=True, ensure_ascii=False)


def key_of(key: str, number: int) -> str:
    """The first caption has the plain keys, which other tools read."""
    return f"{key}_variant{number}" if number else key


def why_unusable(path: Path, fingerprint: str, keys: Sequence[str]) -> str | None:
    """None if the entry can be used, else what is wrong with it. Reads the list of its contents, not the arrays.

    `keys`: of all arrays that it must hold.
    """
    if not path.exists():
        return "not made yet"
    try:
        with np.load(path, allow_pickle=False) as entry:
            held = set(entry.files)
            found = str(entry["fingerprint"]) if "fingerprint" in held else None
    except UNREADABLE:
        return "damaged"
    if found is None:
        return "without a fingerprint, which tells what they were made from"
    if found != fingerprint:
        return difference(found, fingerprint, REASONS)
    return None if held.issuperset(keys) else "damaged"


def write_entry(path: Path, captions: Sequence[Arrays], fingerprint: str) -> None:
    """Write an entry, whole or not at all."""
    arrays = {key_of(key, number): array for number, caption in enumerate(captions) for key, array in caption.items()}
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, fingerprint=np.array(fingerprint), **arrays)  # type: ignore[arg-type]  # its stub takes keys for options
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"text encoder cache {path} cannot be written: {reason}; make room or mend the rights, or {ELSE}") from error


def read_entry(path: Path, number: int, keys: Sequence[str], fingerprint: str | None) -> Arrays:
    """The `number`-th caption of an entry. `fingerprint`: what it must still be made from; None trusts what is there."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            if fingerprint is not None and str(entry["fingerprint"]) != fingerprint:
                raise UserError(
                    f"text encoder cache {path} was replaced while this run uses it, perhaps by a run with other settings; "
                    f"give each run its own copy of the folder, or {ELSE}"
                )
            return {key: entry[key_of(key, number)] for key in keys}
    except UNREADABLE as error:
        remedy = "delete it, or leave out skip_cache_check, and it is made again"
        raise UserError(f"text encoder cache {path} cannot be read ({error}); {remedy}") from error
