"""Reads the files in a zip archive: counts what comes out, and stops at the limits whatever the headers say."""
from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from service.intake.zip_directory import STORED, Entry, read_directory
from service.intake.zip_names import BadArchive

_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class ZipLimits:
    """What an archive may cost us."""

    entries: int = 5000
    total_bytes: int = 8 << 30  # of all that is unpacked
    entry_bytes: int = 64 << 20
    ratio: int = 200  # unpacked to packed bytes
    ratio_from_bytes: int = 1 << 20  # small files may pack as well as they can


class ZipReader:
    """An open archive. `unpacked_bytes` counts all that came out of it so far."""

    def __init__(self, path: Path, limits: ZipLimits):
        self._file = path.open("rb")
        self._limits = limits
        self.unpacked_bytes = 0
        try:
            self.entries = read_directory(self._file, limits.entries)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ZipReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def read(self, entry: Entry, most_bytes: int) -> bytes | None:
        """The whole content; None if it is longer than that."""
        return None if entry.size > most_bytes else b"".join(self.blocks(entry))

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The content in small blocks. Raises BadArchive where it breaks a limit or is not what its header says."""
        size = crc = 0
        for block, packed_bytes in self._inflated(entry):
            size += len(block)
            crc = zlib.crc32(block, crc)
            self._count(entry, len(block), size, packed_bytes)
            yield block
        if size != entry.size or crc != entry.crc:
            raise BadArchive(f"{entry.name} is damaged: its content is not what its header says")

    def _count(self, entry: Entry, block_bytes: int, size: int, packed_bytes: int) -> None:
        limits = self._limits
        self.unpacked_bytes += block_bytes
        if size > entry.size:
            raise BadArchive(f"{entry.name} holds more than its header says")
        if size > limits.entry_bytes:
            raise BadArchive(f"{entry.name} is larger than {limits.entry_bytes} bytes")
        if self.unpacked_bytes > limits.total_bytes:
            raise BadArchive(f"the archive holds more than {limits.total_bytes} bytes")
        if size > limits.ratio_from_bytes and size > limits.ratio * packed_bytes:
            raise BadArchive(f"{entry.name} unpacks to more than {limits.ratio} times its size")

    def _inflated(self, entry: Entry) -> Iterator[tuple[bytes, int]]:
        """Blocks, each with the packed bytes that were used up to there."""
        used = 0
        if entry.method == STORED:
            for block in self._packed(entry):
                used += len(block)
                yield block, used
            return
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        for block in self._packed(entry):
            if inflater.eof:
                break
            used += len(block)
            while block or inflater.unconsumed_tail:
                found = self._inflate(entry, inflater, block)
                yield found, used - len(inflater.unconsumed_tail) - len(inflater.unused_data)
                block = inflater.unconsumed_tail
        while not inflater.eof and (found := self._inflate(entry, inflater, b"")):  # what it held back for want of room
            yield found, used
        if not inflater.eof or used - len(inflater.unused_data) != entry.packed_bytes:
            raise BadArchive(f"{entry.name} is damaged: its packed data end at the wrong place")

    def _inflate(self, entry: Entry, inflater: zlib._Decompress, block: bytes) -> bytes:
        try:
            return inflater.decompress(block, _BLOCK_BYTES)
        except zlib.error:
            raise BadArchive(f"{entry.name} is damaged: its packed data cannot be read") from None

    def _packed(self, entry: Entry) -> Iterator[bytes]:
        place, end = entry.data_start, entry.data_start + entry.packed_bytes
        while place < end:
            self._file.seek(place)  # each time: two entries may be read in turns
            block = self._file.read(min(_BLOCK_BYTES, end - place))
            if not block:
                raise BadArchive("the archive is cut short")
            place += len(block)
            yield block
