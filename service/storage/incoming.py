"""A file on its way into the store: counted and hashed as it comes, under a temporary name until it is whole and on the disk."""
from __future__ import annotations

import hashlib
import os
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from service.storage.space import full_is_told, need_room
from service.storage.store import TooLarge

_ROOM_IS_CHECKED_EVERY = 64 << 20  # bytes


class Incoming:
    """Use it in a with statement: what is not published by its end is gone."""

    def __init__(self, folder: Path, max_bytes: int, announced_bytes: int, reserve_bytes: int, is_unpacked_later: bool):
        """Raises TooLarge or DiskFull by what is announced already (0: nothing is)."""
        if announced_bytes > max_bytes:
            raise TooLarge(max_bytes)
        self._max_bytes, self._reserve_bytes, self._is_unpacked_later = max_bytes, reserve_bytes, is_unpacked_later
        self._path = folder / uuid.uuid4().hex
        with full_is_told():
            folder.mkdir(parents=True, exist_ok=True)
            need_room(folder, announced_bytes + self._room_beside(announced_bytes), reserve_bytes)
            self._file = self._path.open("xb")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._room_checked_at = 0
        self.size = 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Raises TooLarge or DiskFull."""
        self.size += len(data)
        if self.size > self._max_bytes:
            raise TooLarge(self._max_bytes)
        if self.size - self._room_checked_at >= _ROOM_IS_CHECKED_EVERY:
            need_room(self._path.parent, self._room_beside(self.size), self._reserve_bytes)
            self._room_checked_at = self.size
        self._md5.update(data)
        with full_is_told():
            self._file.write(data)

    def _room_beside(self, size: int) -> int:
        return size if self._is_unpacked_later else 0

    def finish(self) -> str:
        """Flushes everything to the disk; the MD5 of the content in hex."""
        if not self._file.closed:
            with full_is_told():
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        return self._md5.hexdigest()

    def publish(self, place: Path) -> None:
        """The finished file takes its name, which has to be free; its folder is made."""
        with full_is_told():
            place.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(place)
        flush_folder(place.parent)


def flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where folders can be flushed."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # some network file systems cannot; somebody may have deleted it already
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
