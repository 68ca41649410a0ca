"""From dataset settings to records: images listed, sizes and captions read, buckets assigned; all mistakes reported at once."""
from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.buckets import Assignment, bucket_assigner
from library.data.caption_folders import list_captioned
from library.data.class_images import agree_on_sizes
from library.data.described import list_described
from library.data.listing import Listing
from library.data.pairing import pairing_mistakes, pairing_notes
from library.data.records import ImageRecord, PreparedDataset, Size
from library.data.scan import Scan, scan_images
from library.data.validation import held_out, validation_settings
from library.data.wording import shortened
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings, SubsetSettings

_MANY = 10_000  # images: from here on the garbage collector is told to leave them alone for good


def prepare_datasets(
    datasets: Sequence[DatasetSettings], on_bad_image: str = "stop", latent_suffix: str | None = None
) -> list[PreparedDataset]:
    """The images of every dataset. With `on_bad_image` "skip" bad files are left out, with "stop" they are mistakes.

    `latent_suffix`: how the names of latent caches end, if latents are cached: they may then stand in for images of metadata
    files that are not there.
    """
    with _no_collecting():
        prepared = _prepare_datasets(datasets, on_bad_image, latent_suffix)
    if sum(len(dataset.records) for dataset in prepared) > _MANY:
        gc.freeze()
    return prepared


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Hundreds of thousands of objects that all stay make the garbage collector run again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _prepare_datasets(datasets: Sequence[DatasetSettings], on_bad_image: str, latent_suffix: str | None) -> list[PreparedDataset]:
    mistakes: list[str] = []
    notes: list[list[str]] = [[] for _ in datasets]
    listings = [_list_dataset(dataset, latent_suffix, mistakes, found) for dataset, found in zip(datasets, notes, strict=True)]
    everything = [listing for dataset in listings for listing in dataset]
    agree_on_sizes(listing.class_images for listing in everything if listing.class_images)
    scan = _scan(everything, every_pixel=on_bad_image == "skip")
    prepared = [_prepare(*parts, scan) for parts in zip(datasets, listings, notes, strict=True)]
    bad = {path: reason for dataset in prepared for path, reason in dataset.skipped}
    if bad and on_bad_image == "stop":
        mistakes += shortened([f"{path}: {reason}" for path, reason in sorted(bad.items())], "bad images")
        mistakes.append("mend or remove bad images, or give --on_bad_image skip to train without them")
    for dataset in prepared:
        if not mistakes:
            mistakes += [*_lacking(dataset), *pairing_mistakes(dataset)]
    if not mistakes and not any(dataset.train_entries for dataset in prepared):
        mistakes.append(f"{datasets[0].where}: validation_split holds out every image; leave some to train on")
    if mistakes:
        raise UserError(*mistakes)
    return prepared


def _list_dataset(dataset: DatasetSettings, latent_suffix: str | None, mistakes: list[str], notes: list[str]) -> list[Listing]:
    listings = []
    for number in range(len(dataset.subsets)):
        try:
            listings.append(_list_subset(dataset, number, latent_suffix, mistakes, notes))
        except UserError as error:
            mistakes += error.messages
    return listings


def _list_subset(
    dataset: DatasetSettings, number: int, latent_suffix: str | None, mistakes: list[str], notes: list[str]
) -> Listing:
    subset = dataset.subsets[number]
    if subset.metadata_file:
        return list_described(number, subset.metadata_file, subset, latent_suffix, mistakes, notes)
    return list_captioned(dataset, number, mistakes, notes)


def _scan(listings: Sequence[Listing], every_pixel: bool) -> Scan:
    """Looks at every file that is not known to be bad, masks too."""
    latents: set[str] = set()
    future: dict[str, Size] = {}
    claimed: dict[str, Size] = {}
    for listing in listings:
        latents.update(listing.latent_buckets)
        future |= listing.future_sizes
        claimed |= listing.claimed_sizes
    passed_over = {"", *latents, *future}  # "": there is no mask
    paths = (
        path
        for listing in listings
        for path in (*listing.paths, *listing.masks)
        if path not in passed_over and path not in listing.bad
    )
    scan = scan_images(paths, every_pixel, claimed)
    scan.sizes |= {path: claimed[path] for path in latents} | future
    return scan


def _prepare(dataset: DatasetSettings, listings: list[Listing], notes: list[str], scan: Scan) -> PreparedDataset:
    assign = bucket_assigner(dataset)
    records: list[ImageRecord] = []
    validation: list[ImageRecord] = []
    skipped: list[tuple[str, str]] = []
    for listing in listings:
        subset = dataset.subsets[listing.subset]
        usable = []
        all_good = not (scan.bad or listing.bad or listing.latent_buckets or listing.masks)
        for position, path in enumerate(listing.paths):
            reason = None if all_good else _why_bad(listing, position, scan, assign)
            if reason is None:
                usable.append(_record(listing, position, subset, scan, assign))
            else:
                skipped.append((path, reason))
        held = _held_out(usable, subset)
        records += [record for position, record in enumerate(usable) if position not in held]
        validation += [dataclasses.replace(usable[position], num_repeats=1) for position in sorted(held)]
        notes += [*_remarks(listing, subset, scan, len(held), len(usable)), *_write_index(listing, subset, scan)]
    seen = PreparedDataset(validation_settings(dataset), validation) if validation else None
    wanted = [listing.class_images for listing in listings if listing.class_images]
    prepared = PreparedDataset(dataset, records, skipped, notes, seen, class_images=wanted)
    notes += pairing_notes(prepared)
    return prepared


def _held_out(records: list[ImageRecord], subset: SubsetSettings) -> set[int]:
    if not subset.validation_split:
        return set()
    return held_out([Path(record.path).name for record in records], subset.validation_split, subset.validation_seed)


def _record(
    listing: Listing, position: int, subset: SubsetSettings, scan: Scan, assign: Callable[[Size], Assignment]
) -> ImageRecord:
    path, caption = listing.paths[position], listing.captions[position]
    size = scan.sizes[path]
    bucket, resized = assign(size)
    stored = (subset.class_tokens or "") if caption is None else caption
    mask = listing.masks[position] if listing.masks else None
    # In the order of the fields: naming ten of them a hundred thousand times takes a third longer.
    return ImageRecord(path, size, stored, caption is not None, listing.subset, subset.is_reg, subset.num_repeats, bucket, resized, mask)


def _why_bad(listing: Listing, position: int, scan: Scan, assign: Callable[[Size], Assignment]) -> str | None:
    path = listing.paths[position]
    if path in listing.bad or path in scan.bad:
        return listing.bad.get(path) or scan.bad[path]
    if path in listing.latent_buckets:
        latents, needed = listing.latent_buckets[path], assign(scan.sizes[path]).bucket
        problem = f"there is no image, and these latents are for {_shown(latents)}, not {_shown(needed)}"
        return None if latents == needed else problem
    return _why_bad_mask(path, listing.masks[position], scan) if listing.masks else None


def _why_bad_mask(path: str, mask: str, scan: Scan) -> str | None:
    if mask in scan.bad:
        return f"its mask {mask} {scan.bad[mask]}"
    size, mask_size = scan.sizes[path], scan.sizes.get(mask)
    if mask_size in (None, size):  # None: that it has no mask was told
        return None
    return f"has {_shown(size)} pixels, its mask {mask} has {_shown(mask_size)} pixels; make them the same size"


def _write_index(listing: Listing, subset: SubsetSettings, scan: Scan) -> list[str]:
    """Keep sizes and captions for the next run, if this subset has an index; what went wrong."""
    if listing.index is None:
        return []
    future, known = listing.future_sizes, scan.sizes
    sizes = [None if path in future else known.get(path) for path in listing.paths]
    problem = listing.index.write(sizes, listing.index_captions)
    return [f"{subset.where} cache_info: {problem}"] if problem else []


def _remarks(listing: Listing, subset: SubsetSettings, scan: Scan, held: int, usable: int) -> Iterator[str]:
    """What a person should know of one subset."""
    claimed = listing.claimed_sizes
    wrong = [path for path, size in claimed.items() if scan.sizes.get(path, size) != size]
    if wrong:
        example = f"{wrong[0]}, which is not {_shown(claimed[wrong[0]])}"
        yield f"{subset.where}: {len(wrong)} images have another size than is recorded, such as {example}; the true size is used"
    if listing.masks:
        yield f'{subset.where}: the masks in "{subset.conditioning_data_dir}" say how much each pixel counts'
    if listing.class_images:
        yield f"{subset.where}: {listing.class_images.described(len(listing.paths))}"
    if subset.validation_split:
        yield f"{subset.where}: {held} of {usable} images are held out (validation_split = {subset.validation_split})"


def _lacking(prepared: PreparedDataset) -> list[str]:
    """What a dataset lacks for training after bad images are left out."""
    if prepared.train_entries or prepared.validation:
        return []
    reasons = [f"{path}: {reason}" for path, reason in prepared.skipped[:1]]
    return [f"{prepared.settings.where}: there is no image to train on; {len(prepared.skipped)} are bad", *reasons]


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
