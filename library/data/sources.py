"""From dataset settings to records: images listed, sizes and captions read, buckets assigned; all mistakes reported at once."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from library.data.buckets import bucket_assigner
from library.data.caption_files import caption_lines, captions_elsewhere, find_caption
from library.data.folders import Folder, describe_left_out, list_folder, same_names, why_empty
from library.data.records import ImageRecord, PreparedDataset
from library.data.scan import Scan, in_threads, scan_images
from library.data.wording import shortened
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings, SubsetSettings


@dataclass
class _Listing:
    """The images of one subset, before their files are opened."""

    subset: int
    paths: list[str] = field(default_factory=list)
    captions: list[str | None] = field(default_factory=list)  # None: no caption file


def prepare_datasets(datasets: Sequence[DatasetSettings], on_bad_image: str = "stop") -> list[PreparedDataset]:
    """The images of every dataset. With `on_bad_image` "skip" bad files are left out, with "stop" they are mistakes."""
    mistakes: list[str] = []
    notes: list[list[str]] = [[] for _ in datasets]
    listings = [_list_dataset(dataset, mistakes, notes[index]) for index, dataset in enumerate(datasets)]
    scan = scan_images(
        (path for dataset in listings for listing in dataset for path in listing.paths), every_pixel=on_bad_image == "skip"
    )
    if scan.bad and on_bad_image == "stop":
        mistakes += shortened([f"{path}: {reason}" for path, reason in sorted(scan.bad.items())], "bad images")
        mistakes.append("mend or remove bad images, or give --on_bad_image skip to train without them")
    prepared = []
    for dataset, subsets, found in zip(datasets, listings, notes, strict=True):
        prepared.append(_prepare(dataset, subsets, scan, found))
        if not mistakes:
            mistakes += _lacking(prepared[-1])
    if mistakes:
        raise UserError(*mistakes)
    return prepared


def _list_dataset(dataset: DatasetSettings, mistakes: list[str], notes: list[str]) -> list[_Listing]:
    listings = []
    for index, subset in enumerate(dataset.subsets):
        try:
            listings.append(_list_subset(index, subset, mistakes, notes))
        except UserError as error:
            mistakes += error.messages
    return listings


def _list_subset(index: int, subset: SubsetSettings, mistakes: list[str], notes: list[str]) -> _Listing:
    folder = list_folder(subset.image_dir, subset.where)
    if not folder.images:
        raise UserError(f"{subset.where}: {why_empty(subset.image_dir, folder)}")
    if folder.left_out:
        notes.append(f'{subset.where}: {describe_left_out(folder)} in "{subset.image_dir}"')
    clashes = [
        f'{subset.where}: "{first}" and "{second}" in "{subset.image_dir}" would share a caption: rename one of them'
        for first, second in same_names(folder)
    ]
    mistakes += shortened(clashes, "pairs of the same name")
    elsewhere = captions_elsewhere(folder, subset)
    if elsewhere:
        mistakes.append(elsewhere)
    paths = [str(subset.image_dir / image) for image in folder.images]
    return _Listing(index, paths, _read_captions(folder, subset, mistakes, notes))


def _read_captions(folder: Folder, subset: SubsetSettings, mistakes: list[str], notes: list[str]) -> list[str | None]:
    """The caption of each image: its lines if wildcards choose between them, else the first line; None without a file."""
    names = [find_caption(folder, image, subset.caption_extension) for image in folder.images]
    files = [str(subset.image_dir / name) for name in names if name is not None]
    unreadable: list[str] = []
    texts: list[str] = []
    cut = 0
    for lines in in_threads(caption_lines, files):
        if isinstance(lines, UserError):
            unreadable += lines.messages
            lines = []
        if not subset.caption.enable_wildcard:
            cut += len(lines) > 1
            lines = lines[:1]
        texts.append("\n".join(lines))
    mistakes += shortened(unreadable, "captions that cannot be read")
    if cut:
        notes.append(f"{subset.where}: of {cut} captions with several lines only the first is used (enable_wildcard uses all)")
    remaining = iter(texts)
    return [None if name is None else next(remaining) for name in names]


def _prepare(dataset: DatasetSettings, listings: list[_Listing], scan: Scan, notes: list[str]) -> PreparedDataset:
    assign = bucket_assigner(dataset)
    records = []
    skipped = []
    for listing in listings:
        subset = dataset.subsets[listing.subset]
        for path, caption in zip(listing.paths, listing.captions, strict=True):
            if path in scan.bad:
                skipped.append((path, scan.bad[path]))
                continue
            assignment = assign(scan.sizes[path])
            records.append(
                ImageRecord(
                    path=path,
                    size=scan.sizes[path],
                    caption=(subset.class_tokens or "") if caption is None else caption,
                    has_caption=caption is not None,
                    subset=listing.subset,
                    is_reg=subset.is_reg,
                    num_repeats=subset.num_repeats,
                    bucket=assignment.bucket,
                    resized=assignment.resized,
                )
            )
    return PreparedDataset(dataset, records, skipped, notes)


def _lacking(prepared: PreparedDataset) -> list[str]:
    """What a dataset lacks for training after bad images are left out."""
    if prepared.train_entries:
        return []
    reasons = [f"{path}: {reason}" for path, reason in prepared.skipped[:1]]
    return [f"{prepared.settings.where}: there is no image to train on; {len(prepared.skipped)} are bad", *reasons]
