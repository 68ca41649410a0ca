"""Works through images in batches: the next ones are read while a model looks at these; each result is kept at once."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from library.data.image_files import BadImage
from library.data.read_ahead import read_ahead
from library.data.wording import shortened
from library.errors import UserError
from library.preparation.images import ImageTree

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")

MOST_THREADS = 8
LOOK_AHEAD_BATCHES = 2


def describe_images(
    images: Sequence[Path],
    load: Callable[[Path], Loaded],
    describe: Callable[[list[Loaded]], list[Result]],
    keep: Callable[[Path, Result], None],
    batch_size: int,
    threads: int | None,
    title: str,
) -> None:
    """`load` each image in one of the threads, `describe` a batch of them, `keep` each result.

    Bad images are left out and named in a UserError at the end: mended, the next call has only these to do.
    """
    bad: list[str] = []

    def load_or_none(image: Path) -> Loaded | None:
        try:
            return load(image)
        except BadImage as error:
            bad.append(str(error))
            return None

    with ThreadPoolExecutor(_thread_count(threads)) as pool, tqdm(total=len(images), desc=title, unit="image") as bar:
        loaded = zip(images, read_ahead(pool, load_or_none, images, batch_size * LOOK_AHEAD_BATCHES), strict=True)
        while batch := list(islice(loaded, batch_size)):
            good = [(image, found) for image, found in batch if found is not None]
            results = describe([found for _, found in good]) if good else []
            for (image, _), result in zip(good, results, strict=True):
                keep(image, result)
            bar.update(len(batch))
    if bad:
        raise UserError(*shortened(sorted(bad), "bad images"), "the other images are done; mend or remove these")


def _thread_count(asked: int | None) -> int:
    return min(MOST_THREADS, os.cpu_count() or 1) if asked is None else max(1, asked)


def uncaptioned(tree: ImageTree, extension: str) -> list[Path]:
    """The images without a caption file of their own; what killed runs left is cleared away, and what is done is told."""
    tree.check_names()
    tree.remove_leftovers()
    missing = [image for image in tree.images if not _is_captioned(image.with_suffix(extension))]
    done = len(tree.images) - len(missing)
    if done:
        print(f"{done} of {len(tree.images)} images have a {extension} file already; delete those that are to be made again")
    return missing


def _is_captioned(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0  # an empty file is what a power cut leaves
