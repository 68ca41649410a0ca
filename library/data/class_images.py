"""Regularisation pictures that the base model draws before training: which are missing, their names, what is written into them."""
from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from library.checkpoint.files import free_bytes, readable_size
from library.data.folders import Folder, list_folder
from library.data.image_files import opened
from library.data.records import Size
from library.data.scan import read_each

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings, SubsetSettings

_NAME = re.compile(r"class_image_(\d{5})")  # without its extension; the option ends at five digits, too
_TEXT = "parameters"  # the key under which programs that draw keep such things in a PNG
_BYTES_A_PIXEL = 3  # at most


@dataclass
class ClassImages:
    """What is to be drawn into one folder. `numbers` are those of all pictures with our names, drawn already or not."""

    folder: Path
    prompt: str
    size: Size
    at_once: int  # pictures of a batch
    numbers: tuple[int, ...]  # sorted
    missing: frozenset[int]

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The batches in which something is missing. What is there counts too, so that a batch has the same numbers after a kill.

        For the last bits of a picture depend on the size of its batch.
        """
        groups = [self.numbers[start : start + self.at_once] for start in range(0, len(self.numbers), self.at_once)]
        return [group for group in groups if self.missing.intersection(group)]

    def path(self, number: int) -> Path:
        return self.folder / name_of(number)

    def described(self, total: int) -> str:
        """For the plan. `total`: how many pictures the folder will hold."""
        width, height = self.size
        return (
            f'{len(self.missing)} of {total} class pictures will be drawn from "{self.prompt}" before training '
            f"({width}x{height}, {self.at_once} at a time)"
        )


def name_of(number: int) -> str:
    return f"class_image_{number:05d}.png"


def list_class_folder(path: Path, subset: SubsetSettings) -> Folder:
    """What the folder holds; if pictures will be drawn into it, it may be missing."""
    if subset.num_class_images and not path.exists():
        return Folder([], {}, Counter())
    return list_folder(path, subset.where)


def missing_class_images(folder: Folder, path: Path, subset: SubsetSettings, dataset: DatasetSettings) -> ClassImages | None:
    """What there will have to be drawn, so that the folder has the number of pictures that its subset asks for.

    Pictures of the user's count. The lowest free numbers are taken: after a kill, the same ones as before.
    """
    if len(folder.images) >= subset.num_class_images:
        return None
    there = {int(match[1]) for image in folder.images if (match := _NAME.fullmatch(Path(image).stem.lower()))}
    new: list[int] = []
    while len(folder.images) + len(new) < subset.num_class_images:
        number = new[-1] + 1 if new else 1
        while number in there:
            number += 1
        new.append(number)
    assert subset.class_prompt is not None
    numbers = tuple(sorted(there.union(new)))
    return ClassImages(path, subset.class_prompt, dataset.resolution, dataset.batch_size, numbers, frozenset(new))


def agree_on_sizes(all_wanted: Iterable[ClassImages]) -> None:
    """Of the datasets that share a folder the first one says how large its pictures are drawn."""
    sizes: dict[Path, Size] = {}
    for wanted in all_wanted:
        wanted.size = sizes.setdefault(wanted.folder.resolve(), wanted.size)


def check_class_images(folder: Folder, path: Path, subset: SubsetSettings) -> list[str]:
    """Mistakes: pictures that were drawn from something else than the class prompt."""
    ours = [str(path / image) for image in folder.images if _NAME.fullmatch(Path(image).stem.lower())]
    prompts = zip(ours, read_each(drawn_from, ours), strict=True)
    others = [(image, found) for image, found in prompts if isinstance(found, str) and found != subset.class_prompt]
    if not others:
        return []
    image, prompt = others[0]
    return [
        f'{subset.where} class_prompt: this is "{subset.class_prompt}", but {len(others)} pictures in its folder were drawn from '
        f'another, such as {image} from "{prompt}"; put that prompt back, remove these pictures, or use another folder'
    ]


def check_place(wanted: ClassImages, subset: SubsetSettings) -> list[str]:
    """Mistakes: why the folder, which may not be there yet, cannot take the pictures."""
    place = wanted.folder.absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return [f"{subset.where} image_dir: class pictures cannot be drawn into {wanted.folder}: {place} cannot be written"]
    needed, free = len(wanted.missing) * wanted.size[0] * wanted.size[1] * _BYTES_A_PIXEL, free_bytes(place)
    if needed > free:
        room = f"{readable_size(needed)} may be needed, {readable_size(free)} are free"
        return [f"{subset.where} num_class_images: there is no room for so many pictures in {place}: {room}"]
    return []


def description(prompt: str, **facts: object) -> dict[str, str]:
    """What is written into a PNG: the prompt, and in a last line how it was drawn."""
    return {_TEXT: f"{prompt}\n{', '.join(f'{name}: {value}' for name, value in facts.items())}"}


def drawn_from(path: str) -> str | None:
    """The prompt that a class picture tells of; None if it tells of none."""
    with opened(path) as (_, image):
        text = image.info.get(_TEXT)
        return text.rpartition("\n")[0] if isinstance(text, str) and "\n" in text else None
