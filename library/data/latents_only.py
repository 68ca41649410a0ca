"""Latent caches that stand in for pictures that are not there: found by name, usable only if they hold all that is needed."""
from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from library.data.entry_file import UNREADABLE
from library.data.records import Size
from library.errors import UserError

EXTENSION = ".npz"
_PIXELS = 8  # of the picture per pixel of the latents, along a side
_USUAL_SUFFIX = "_sd"


class LatentsOnly(NamedTuple):
    """What a file of latents says of the picture that it was made from."""

    size: Size
    bucket: Size  # that the latents are for


def latents_by_stem(files: Iterable[str], suffix: str | None) -> dict[str, list[str]]:
    """Latent caches in a folder by the stem of their picture: `<stem>.npz`, else `<stem>_<W>x<H><suffix>.npz`."""
    sized = re.compile(rf"(.+)_\d{{4,}}x\d{{4,}}{re.escape(suffix or _USUAL_SUFFIX)}")
    plain: dict[str, list[str]] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if name.endswith(EXTENSION):
            stem = name.removesuffix(EXTENSION)
            plain[stem] = [name]
            if match := sized.fullmatch(stem):
                found[match[1]].append(name)
    return {**found, **plain}


def read_facts(path: str, flipped: bool, masked: bool) -> LatentsOnly:
    """UserError says what is wrong with the file. All of it is read, for nothing could replace what turns out to be damaged later."""
    needed = ["latents", "original_size", *(["latents_flipped"] if flipped else []), *(["alpha_mask"] if masked else [])]
    try:
        with np.load(path, allow_pickle=False) as entry:
            missing = [key for key in needed if key not in entry.files]
            if missing:
                raise UserError(f"{path} lack {', '.join(missing)}")
            width, height = (int(side) for side in entry["original_size"])
            if spoilt := entry.zip.testzip():
                raise UserError(f"{path} are damaged (in {spoilt})")
        shapes = [_shape(path, key) for key in needed if key.startswith("latents")]
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if min(width, height) < 1 or any(len(shape) != 3 or shape != shapes[0] for shape in shapes):
        raise UserError(f"{path} are no latents of one picture")
    rows, columns = shapes[0][1:]
    return LatentsOnly((width, height), (columns * _PIXELS, rows * _PIXELS))


def _shape(path: str, key: str) -> tuple[int, ...]:
    """The shape of one array of an .npz file, from its header."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)[0]
