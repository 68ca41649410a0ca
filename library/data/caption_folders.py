"""Subsets that are a folder: its pictures, the caption file of each, and the mask of each if there are masks."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.caption_files import caption_lines, captions_elsewhere, find_caption
from library.data.class_images import check_class_images, check_place, list_class_folder, missing_class_images, name_of
from library.data.folder_index import FolderIndex
from library.data.folders import Folder, describe_left_out, same_names, why_empty, within
from library.data.listing import Listing
from library.data.masks import pair_masks
from library.data.scan import read_each
from library.data.wording import shortened
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings, SubsetSettings


def list_captioned(dataset: DatasetSettings, number: int, mistakes: list[str], notes: list[str]) -> Listing:
    """The pictures of the folder of this subset, and those that will be drawn into it."""
    subset = dataset.subsets[number]
    path = subset.image_dir or Path()
    index = FolderIndex(path) if subset.cache_info else None  # which looks at the files from here on
    folder = list_class_folder(path, subset)
    wanted = missing_class_images(folder, path, subset, dataset)
    if not folder.images and not wanted:
        raise UserError(f"{subset.where}: {why_empty(path, folder)}")
    if folder.left_out:
        notes.append(f'{subset.where}: {describe_left_out(folder)} in "{path}"')
    clashes = [
        f'{subset.where}: "{first}" and "{second}" in "{path}" would share a caption: rename one of them'
        for first, second in same_names(folder)
    ]
    mistakes += shortened(clashes, "pairs of the same name")
    elsewhere = captions_elsewhere(folder, subset)
    if elsewhere:
        mistakes.append(elsewhere)
    if subset.num_class_images:
        mistakes += check_class_images(folder, path, subset)
    if wanted:
        mistakes += check_place(wanted, subset)
        folder = dataclasses.replace(folder, images=sorted([*folder.images, *map(name_of, wanted.missing)]))
    listing = Listing(number, within(path, folder.images), class_images=wanted, index=index)
    _find_captions(listing, folder, path, subset, mistakes, notes)
    if subset.conditioning_data_dir:
        listing.masks = pair_masks(folder.images, subset.conditioning_data_dir, subset, mistakes)
    return listing


def _find_captions(
    listing: Listing, folder: Folder, path: Path, subset: SubsetSettings, mistakes: list[str], notes: list[str]
) -> None:
    """The caption of each image: its lines if wildcards choose between them, else the first line; None without a file."""
    files = [find_caption(folder, image, subset.caption_extension) for image in folder.images]
    captions: list[str | None] = [None] * len(files)
    if listing.index:
        listing.index.read(folder.images, files)
        listing.claimed_sizes = {
            image_path: size for image_path, size in zip(listing.paths, listing.index.sizes, strict=True) if size
        }
        captions = [caption if file else None for file, caption in zip(files, listing.index.captions, strict=True)]
    unread = {position: file for position, file in enumerate(files) if file and captions[position] is None}
    found = _read_captions(within(path, unread.values()), mistakes)
    for position, caption in zip(unread, found, strict=True):
        captions[position] = caption
    if listing.index:
        listing.index_captions = [subset.class_tokens or "" if caption is None else caption for caption in captions]
    listing.captions = captions
    cut = [position for position, caption in enumerate(captions) if caption and "\n" in caption]
    if cut and not subset.caption.enable_wildcard:
        for position in cut:
            captions[position] = (captions[position] or "").partition("\n")[0]
        notes.append(f"{subset.where}: of {len(cut)} captions with several lines only the first is used (enable_wildcard uses all)")


def _read_captions(paths: list[str], mistakes: list[str]) -> list[str | None]:
    """The lines of each caption file; None of what cannot be read."""
    found = read_each(caption_lines, paths)
    unreadable = [message for lines in found if isinstance(lines, UserError) for message in lines.messages]
    mistakes += shortened(unreadable, "captions that cannot be read")
    return [None if isinstance(lines, UserError) else "\n".join(lines) for lines in found]
