"""The protocol of a store: objects under keys, URLs that let a client put or get one object for a while."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

PUT_SECONDS = 3600
LONGEST_PUT_SECONDS = 7 * 24 * 3600
LONGEST_GET_SECONDS = 24 * 3600
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")


@dataclass(frozen=True)
class StoredObject:
    """An object as it lies in the store. etag is the MD5 of its content in hex where the store tells no other."""

    key: str
    size: int
    etag: str


class NoSuchObject(Exception):
    """The store has nothing under this key."""

    def __init__(self, key: str):
        super().__init__(f"nothing is stored under {key}")


class TooLarge(Exception):
    """What was sent is longer than its URL allows."""

    def __init__(self, max_bytes: int):
        super().__init__(f"the upload is longer than the {max_bytes} bytes that its URL allows")
        self.max_bytes = max_bytes


class Store(Protocol):
    """Keys are like jobs/<job id>/input.zip. An object is whole or absent, and replaced as a whole."""

    def put_url(self, key: str, *, max_bytes: int, seconds: int = PUT_SECONDS) -> str:
        """A URL to which whoever has it may PUT the object, for so long. Raises ValueError beyond LONGEST_PUT_SECONDS."""

    def get_url(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        """A URL that gives the object as a download of this name. Raises ValueError beyond LONGEST_GET_SECONDS."""

    def uploaded(self, key: str, *, max_bytes: int) -> StoredObject:
        """What a client has put. Raises NoSuchObject, or TooLarge, after which the object is gone."""

    def save(self, key: str, source: Path) -> StoredObject:
        """A copy of the file becomes the object. Raises DiskFull."""

    def open(self, key: str) -> BinaryIO:
        """The content, to be read from the front. Raises NoSuchObject."""

    def download(self, key: str, destination: Path) -> None:
        """Writes the content to a file, whole or not at all. Raises NoSuchObject or DiskFull."""

    def head(self, key: str) -> StoredObject | None:
        """What lies there, if anything."""

    def delete(self, key: str) -> None:
        """The object is gone, whether it was there or not."""


def checked_key(key: str) -> str:
    """The key, if it is one: names of letters, digits, dot, dash and underscore, joined by slashes."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a store: use letters, digits, '.', '-', '_', joined by '/'")
    return key


def checked_seconds(seconds: int, longest: int) -> int:
    """The duration, if a URL may live so long."""
    if not 0 < seconds <= longest:
        raise ValueError(f"a URL lives for 1 to {longest} seconds, not for {seconds}")
    return seconds
