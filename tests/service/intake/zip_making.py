"""Zip files byte by byte, so that every field can lie."""
from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image


@dataclass(frozen=True)
class Raw:
    """An entry. What is None is told truthfully; local_* is what the local header says where it differs."""

    name: str | bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0x0800
    mode: int = 0o100644
    crc: int | None = None
    size: int | None = None
    packed_bytes: int | None = None
    packed: bytes | None = None
    start: int | None = None  # of the local header, as the directory says
    local_name: bytes | None = None
    local_size: int | None = None
    local_flags: int | None = None
    extra: bytes = b""
    disk: int = 0
    is_written: bool = True  # False: the directory alone has it

    @property
    def raw_name(self) -> bytes:
        return self.name.encode() if isinstance(self.name, str) else self.name


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def zip_bytes(entries: Sequence[Raw], count: int | None = None, before: bytes = b"", comment: bytes = b"", zip64: bool = False) -> bytes:
    """The archive. zip64: with an end record of that kind, too."""
    body = io.BytesIO()
    body.write(before)
    directory = b""
    for entry in entries:
        packed = entry.packed if entry.packed is not None else deflated(entry.data) if entry.method == 8 else entry.data
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        packed_bytes = len(packed) if entry.packed_bytes is None else entry.packed_bytes
        start = body.tell() if entry.start is None else entry.start
        if entry.is_written:
            name = entry.raw_name if entry.local_name is None else entry.local_name
            flags = entry.flags if entry.local_flags is None else entry.local_flags
            told = size if entry.local_size is None else entry.local_size
            body.write(struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, flags, entry.method, 0, 0, crc, packed_bytes, told, len(name), len(entry.extra)))
            body.write(name + entry.extra + packed)
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 0x314, 20, entry.flags, entry.method, 0, 0, crc, packed_bytes, size,
            len(entry.raw_name), len(entry.extra), 0, entry.disk, 0, entry.mode << 16, start,
        )  # fmt: skip
        directory += entry.raw_name + entry.extra
    start = body.tell()
    count = len(entries) if count is None else count
    body.write(directory)
    if zip64:
        end = body.tell()
        body.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start))
        body.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
    body.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, len(comment)) + comment)
    return body.getvalue()


@cache
def picture_bytes(kind: str = "PNG", size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    """A picture whose left half is black and right half white, as a file of this kind."""
    image = Image.new(mode, size)
    image.paste(Image.new("L", (size[0] // 2, size[1]), 255).convert(mode), (size[0] - size[0] // 2, 0))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()
