"""The rules of a download, and the file that it fills within them."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx

from service.intake.addresses import AddressRules, FetchFailed
from service.storage.space import RESERVE_BYTES, need_room

_ZIP_MAGIC, _EMPTY_ZIP_MAGIC = b"PK\x03\x04", b"PK\x05\x06"
_ROOM_IS_CHECKED_EVERY = 64 << 20  # bytes


@dataclass(frozen=True)
class FetchRules:
    """Where a download may come from, and what it may cost.

    own_content(url): the content behind a URL of our own, which is never asked for over the network; None for all other URLs. It
    has to know whose request this is: a URL alone is no right to another project's files.
    """

    addresses: AddressRules = field(default_factory=AddressRules)
    own_content: Callable[[str], BinaryIO | None] = lambda url: None
    max_bytes: int = 2 << 30
    max_data_bytes: int = 1 << 20  # of a data: URI
    is_archive: bool = True  # a zip file is expected, and nothing else taken
    total_seconds: float = 900
    idle_seconds: float = 30
    connect_seconds: float = 5
    redirects: int = 3
    retries: int = 3
    reserve_bytes: int = RESERVE_BYTES
    sleep: Callable[[float], None] = time.sleep
    transport: Callable[[], httpx.BaseTransport] = httpx.HTTPTransport  # bare: it follows nothing, keeps no cookies, asks no proxy


class Target:
    """A file that is being filled. `version` is what the server calls what has come so far, if it calls it anything."""

    def __init__(self, file: BinaryIO, folder: Path, rules: FetchRules):
        self._file, self._folder, self.rules = file, folder, rules
        self._deadline = time.monotonic() + rules.total_seconds
        self._room_checked_at = 0
        self.size = 0
        self.version = ""

    def restart(self, version: str = "") -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = self._room_checked_at = 0
        self.version = version

    def expect(self, size: int) -> None:
        """Raises FetchFailed or DiskFull where the whole file will be so large."""
        self._cap(size)
        need_room(self._folder, size + size - self.size, self.rules.reserve_bytes)  # it will be unpacked beside itself

    def write(self, data: bytes) -> None:
        self.remaining_seconds()
        self._cap(self.size + len(data))
        self._file.write(data)
        before, self.size = self.size, self.size + len(data)
        if self.rules.is_archive and before < len(_ZIP_MAGIC) <= self.size:
            self._check_magic()
        if self.size - self._room_checked_at >= _ROOM_IS_CHECKED_EVERY:
            need_room(self._folder, self.size, self.rules.reserve_bytes)
            self._room_checked_at = self.size

    def finish(self) -> None:
        if self.size < (len(_ZIP_MAGIC) if self.rules.is_archive else 1):
            kind = "zip archive" if self.rules.is_archive else "file"
            raise FetchFailed(f"the URL gives no {kind}: there is nothing behind it")

    def remaining_seconds(self) -> float:
        """Raises FetchFailed when there are none."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise FetchFailed(f"the download took longer than {self.rules.total_seconds:g} seconds")
        return seconds

    def _cap(self, size: int) -> None:
        if size > self.rules.max_bytes:
            raise FetchFailed(f"the file is larger than {self.rules.max_bytes} bytes")

    def _check_magic(self) -> None:
        self._file.seek(0)
        head = self._file.read(len(_ZIP_MAGIC))
        self._file.seek(0, 2)
        if head == _EMPTY_ZIP_MAGIC:
            raise FetchFailed("the URL gives a zip archive with nothing in it; put the pictures into it")
        if head != _ZIP_MAGIC:
            hint = "a web page; give the link of the file itself" if head.lstrip()[:1] == b"<" else "something else"
            raise FetchFailed(f"the URL gives no zip archive, but {hint}")
