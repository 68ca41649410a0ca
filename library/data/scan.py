"""Looking at many image files in threads: their sizes, and as much of a check of their pixels as the number of them allows."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, thread_time
from typing import TypeVar

from library.data.image_files import BadImage, Header, check_pixels, read_header
from library.data.records import Size
from library.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

THREADS = min(16, (os.cpu_count() or 1) + 4)  # more than cores: the waiting is for the disk
_CHUNK = 256  # items a task, so that a hundred thousand images do not make as many futures

# All images are decoded beforehand if they have at most this many pixels together (570 images of 512x512; a few seconds).
# Of more, unless every pixel is asked for, only those are that lack the end which their format prescribes; what is corrupt
# inside is found when training needs it.
FULL_CHECK_PIXELS = 150_000_000


@dataclass
class Scan:
    """What was found, by path; each path is in one of the two."""

    sizes: dict[str, Size] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)  # the reason


def scan_images(paths: Iterable[str], every_pixel: bool = False, claimed_sizes: Mapping[str, Size] | None = None) -> Scan:
    """Sizes of all images, and the bad ones among them, with `every_pixel` for certain. A path that comes twice is read once.

    Images whose sizes somebody claims to know are not opened for them; where pixels are decoded, the claim is put right.
    """
    claimed = claimed_sizes or {}
    unique = list(dict.fromkeys(paths))
    scan = Scan({path: claimed[path] for path in unique if path in claimed})
    doubtful = []
    shared: dict[Size, Size] = {}  # many images are of one size, and need but one tuple that says it
    unknown = [path for path in unique if path not in claimed]
    for path, header in zip(unknown, read_each(read_header, unknown), strict=True):
        if isinstance(header, Header):
            scan.sizes[path] = shared.setdefault(header.size, header.size)
            if not header.looks_complete:
                doubtful.append(path)
        else:
            scan.bad[path] = _reason(header)
    if every_pixel or sum(width * height for width, height in scan.sizes.values()) <= FULL_CHECK_PIXELS:
        doubtful = list(scan.sizes)
    for path, found in zip(doubtful, in_threads(check_pixels, doubtful), strict=True):
        if isinstance(found, UserError):
            scan.bad[path] = _reason(found)
            del scan.sizes[path]
        else:
            scan.sizes[path] = found
    return scan


def read_each(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result | UserError]:
    """As `in_threads`, for functions that read a little of a file each.

    While the disk answers at once they are called in turn, for threads would only fight for the interpreter, which takes twice
    as long. From where the disk makes us wait on (a network share, a disk that has to seek) they are called in threads.
    """
    results: list[_Result | UserError] = []
    while len(results) < len(items):
        began, began_computing = perf_counter(), thread_time()
        results += _attempts(function, items[len(results) : len(results) + _CHUNK])
        if thread_time() - began_computing < (perf_counter() - began) / 4:
            return results + in_threads(function, items[len(results) :])
    return results


def in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result | UserError]:
    """The function's result for each item in order, or the UserError that it raised."""
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [result for chunk in pool.map(partial(_attempts, function), chunks) for result in chunk]


def _attempts(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result | UserError]:
    results: list[_Result | UserError] = []
    for item in items:
        try:
            results.append(function(item))
        except UserError as error:
            results.append(error)
    return results


def _reason(error: UserError) -> str:
    return error.reason if isinstance(error, BadImage) else str(error)
