"""Masks in a folder of their own: each picture's is found by its name."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.folders import list_folder, same_names, split_name
from library.data.wording import shortened

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings


def pair_masks(images: Sequence[str], folder: Path, subset: SubsetSettings, mistakes: list[str]) -> list[str]:
    """The path of each image's mask (the file of the same stem in `folder`), "" if it has none.

    Whatever is without its partner is a mistake.
    """
    found = list_folder(folder, subset.where)
    by_stem = {split_name(mask)[0]: mask for mask in found.images}
    stems = [split_name(image)[0] for image in images]
    known = set(stems)
    start = f"{subset.where} conditioning_data_dir"
    lonely = [f'{start}: "{image}" has no mask in "{folder}"' for image, stem in zip(images, stems, strict=True) if stem not in by_stem]
    mistakes += shortened(lonely, "pictures without a mask")
    extra = [f'{start}: the mask "{folder / mask}" has no picture' for stem, mask in by_stem.items() if stem not in known]
    mistakes += shortened(extra, "masks without a picture")
    twice = [f'{start}: "{first}" and "{second}" in "{folder}" are masks of one picture' for first, second in same_names(found)]
    mistakes += shortened(twice, "pairs of masks of one picture")
    found_masks = [by_stem.get(stem) for stem in stems]
    return [str(folder / mask) if mask else "" for mask in found_masks]
