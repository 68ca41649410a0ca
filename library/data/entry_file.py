"""What the files of all caches have in common: written whole, checked whole, and a fingerprint that tells whether they still fit."""
from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.checkpoint.files import atomic_write
from library.errors import UserError

NO_FINGERPRINT = "without a fingerprint, which tells what they were made from"
# What numpy and zipfile raise of a file that is torn, is something else, or lacks a key.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, RuntimeError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class EntryKind:
    """What is told of the entries of one kind of cache."""

    name: str
    option: str  # by which it is kept in memory
    reasons: Mapping[str, str]  # by part of the fingerprint, what is wrong where it differs; the first that differs is named

    @property
    def instead(self) -> str:
        return f"use {self.option} without {self.option}_to_disk"

    def why_unusable(self, path: Path, fingerprint: str, keys: Collection[str], lacking: str = "damaged") -> str | None:
        """None if the entry can be used, else what is wrong with it; `lacking`, if it is but one of `keys` that is not there.

        Reads all of an entry that seems to fit, for a bad disk or a broken copy may have spoilt any part of it.
        """
        if not path.exists():
            return "not made yet"
        try:
            with np.load(path, allow_pickle=False) as entry:
                held = set(entry.files)
                found = str(entry["fingerprint"]) if "fingerprint" in held else None
                spoilt = entry.zip.testzip() if found == fingerprint else None
        except UNREADABLE:
            return "damaged"
        if found is None:
            return NO_FINGERPRINT
        if found != fingerprint:
            return self._difference(found, fingerprint)
        if spoilt:
            return "damaged"
        return None if held.issuperset(keys) else lacking

    def _difference(self, found: str, wanted: str) -> str:
        try:
            facts, wanted_facts = json.loads(found), json.loads(wanted)
            return next(reason for key, reason in self.reasons.items() if facts.get(key) != wanted_facts.get(key))
        except (ValueError, AttributeError, StopIteration):
            return "with an unknown fingerprint"

    def write(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an entry, whole or not at all."""
        try:
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the keys for its own options
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{self.name} {path} cannot be written: {reason}; make room or mend the rights, or {self.instead}") from error

    @contextmanager
    def opened(self, path: Path, fingerprint_digest: int | None) -> Iterator[Any]:
        """The arrays of an entry by key. `fingerprint_digest`: of what it must still be made from; None trusts what is there."""
        try:
            with np.load(path, allow_pickle=False) as entry:
                if fingerprint_digest is not None and digest(str(entry["fingerprint"])) != fingerprint_digest:
                    raise UserError(
                        f"{self.name} {path} was replaced while this run uses it, perhaps by a run with other settings; "
                        f"give each run its own copy of the folder, or {self.instead}"
                    )
                yield entry
        except UNREADABLE as error:
            remedy = "start the run again without skip_cache_check: it is made anew"
            raise UserError(f"{self.name} {path} cannot be read ({error}); {remedy}") from error


def digest(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
