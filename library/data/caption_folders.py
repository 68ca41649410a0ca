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
    files = {image: find_caption(folder, image, subset.caption_extension) for image in folder.images}
    captions: dict[str, str] = {}
    if listing.index:
        listing.index.read(files)
        sizes = listing.index.sizes
        listing.claimed_sizes = {
            image_path: sizes[image] for image, image_path in zip(folder.images, listing.paths, strict=True) if image in sizes
        }
        captions = {image: caption for image, caption in listing.index.captions.items() if files[image]}
    unread = {image: file for image, file in files.items() if file and image not in captions}
    captions |= _read_captions(dict(zip(unread, within(path, unread.values()), strict=True)), mistakes)
    listing.captions = [captions.get(image) for image in folder.images]
    if listing.index:
        listing.index_captions = {image: captions.get(image, subset.class_tokens or "") for image in folder.images}
    cut = [position for position, caption in enumerate(listing.captions) if caption and "\n" in caption]
    if cut and not subset.caption.enable_wildcard:
        for position in cut:
            listing.captions[position] = (listing.captions[position] or "").partition("\n")[0]
        notes.append(f"{subset.where}: of {len(cut)} captions with several lines only the first is used (enable_wildcard uses all)")


def _read_captions(files: dict[str, str], mistakes: list[str]) -> dict[str, str]:
    """The lines of each image's caption file."""
    captions: dict[str, str] = {}
    unreadable: list[str] = []
    for image, found in zip(files, read_each(caption_lines, list(files.values())), strict=True):
        if isinstance(found, UserError):
            unreadable += found.messages
        else:
            captions[image] = "\n".join(found)
    mistakes += shortened(unreadable, "captions that cannot be read")
    return captions
