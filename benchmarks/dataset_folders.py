"""Synthetic folders of pictures for the data benchmark: many small files with real headers, or fewer with real pixels."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# (width, height, format, EXIF orientation or None): what people's folders hold, mostly photographs.
KINDS = [
    (width, height, "png" if number % 5 == 0 else "webp" if number % 5 == 1 else "jpg", 6 if number % 5 == 2 else None)
    for number, (width, height) in enumerate(
        (width, height)
        for width in (384, 512, 640, 768, 1024, 1280, 1536)
        for height in (384, 512, 600, 768, 900, 1024, 1200, 1536)
    )
]
FEW = "few"  # the name of a folder of a few pictures beside the large ones
MOST_METADATA_BYTES = 2000


def write_headers(folder: Path, count: int) -> Path:
    """`count` pictures of one colour and of mixed sizes, each with a caption of 8 bytes.

    They differ in the length of what stands before the size, so that headers have to be read; each is a few kilobytes long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    plain = [_one_colour(*kind) for kind in KINDS]
    for number in range(count):
        index = rng.randrange(len(KINDS))
        comment = bytes(rng.randrange(MOST_METADATA_BYTES))
        kind = KINDS[index][2]
        (folder / f"{number:06}.{kind}").write_bytes(_with_comment(plain[index], kind, comment))
        (folder / f"{number:06}.txt").write_bytes(f"tag {number % 10000:04}".encode())
    return folder


def write_photographs(folder: Path, count: int, side: int) -> Path:
    """Square JPEG files as large as photographs are: smooth noise, saved at quality 90."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        grain = np.random.default_rng(number).integers(-8, 9, (side, side, 3))
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=90)
        (folder / f"{number:04}.txt").write_bytes(f"tag {number % 10000:04}".encode())
    return folder


def _one_colour(width: int, height: int, kind: str, orientation: int | None) -> bytes:
    image = Image.new("RGB", (width, height), (width % 256, height % 256, 90))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, {"jpg": "jpeg"}.get(kind, kind), exif=exif)
    return stream.getvalue()


def _with_comment(content: bytes, kind: str, comment: bytes) -> bytes:
    """The file with a comment before its pixels; WebP has no room for one."""
    if kind == "jpg":
        return content[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + content[2:]
    if kind == "png":
        chunk = b"tEXtComment\x00" + comment.replace(b"\x00", b" ")
        end_of_first = 8 + 12 + 13
        piece = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return content[:end_of_first] + piece + content[end_of_first:]
    return content
