"""What a picture looks like in 300 bytes, so that a hundred thousand of them can be held against each other."""
from __future__ import annotations

import hashlib
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from library.data.image_files import TRANSPOSITIONS, decode, opened, orientation

_COLUMNS, _ROWS = 18, 16  # of the small grey version; its 2x2 means are the 9x8 of a difference hash
_DRAFT = (_COLUMNS * 8, _ROWS * 8)  # a JPEG is decoded at an eighth, a quarter or half of its size, but not below this
_NO_STEP = 2  # grey levels; what is flat stays flat whatever JPEG's noise is
_BLANK = 8  # grey levels; a picture that spans less looks like nothing, and so like every other one


class Fingerprint(NamedTuple):
    """Of one image file."""

    digest: bytes  # of the file's bytes
    grey: np.ndarray  # uint8 [16, 18], of the upright image


def fingerprint(path: str) -> Fingerprint:
    """Reads the whole file, decodes as little of it as its format allows. Raises BadImage."""
    with opened(path) as (file, image):
        digest = _digest(file)
        upright = TRANSPOSITIONS.get(orientation(image, file))
        image.draft("L", _DRAFT)
        decode(file, image)
        grey = _on_white(image)
        if upright is not None:
            grey = grey.transpose(upright)
        return Fingerprint(digest, np.asarray(grey.resize((_COLUMNS, _ROWS), Image.Resampling.BOX)))


def _digest(file: BinaryIO) -> bytes:
    """Of the whole file. Leaves the file position as it was."""
    position = file.tell()
    file.seek(0)
    digest = hashlib.blake2b(file.read(), digest_size=16).digest()
    file.seek(position)
    return digest


def _on_white(image: Image.Image) -> Image.Image:
    """Greyscale, transparency laid over white; of 16 bits, only the upper 8."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return image.convert("L")


def difference_hashes(greys: np.ndarray) -> np.ndarray:
    """uint64 [N] of uint8 [N, 16, 18]: a bit for each of 8x8 places, whether it becomes brighter there from left to right."""
    small = greys.reshape(len(greys), _ROWS // 2, 2, _COLUMNS // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    rises = small[:, :, 1:] - small[:, :, :-1] > _NO_STEP
    return np.packbits(rises.reshape(len(greys), 64), axis=1).view(">u8").astype(np.uint64)[:, 0]


def is_blank(grey: np.ndarray) -> bool:
    """Whether there is too little to see for a comparison."""
    return int(grey.max()) - int(grey.min()) < _BLANK


def normalised(greys: np.ndarray) -> np.ndarray:
    """float32 [N, 288] of uint8 [N, 16, 18]: mean 0 and length 1, so that a product of two is their correlation."""
    flat = greys.reshape(len(greys), _ROWS * _COLUMNS).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)
