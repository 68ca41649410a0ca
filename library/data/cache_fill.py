"""Encodes the images that a latent cache lacks, while the next ones are decoded and the last ones written."""
from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from library.checkpoint.temporary import remove_leftovers
from library.data.borrowed_check import check_borrowed
from library.data.cache import CacheSettings, LatentCache
from library.data.cache_file import Latents, Versions, write_entry
from library.data.image_files import BadImage
from library.data.pixels import crop_ltrb, fixed_pixels, model_input
from library.data.read_ahead import read_ahead
from library.data.records import ImageRecord, Place, PreparedDataset
from library.data.scan import read_each
from library.errors import UserError
from library.seeding import torch_generator
from library.types import Posterior

Encode = Callable[[torch.Tensor, Sequence[str]], Posterior]  # images [B, 3, H, W] float32 in [-1, 1] on the CPU, and their paths

MOST_THREADS = 8
LOOK_AHEAD = 16  # images decoded before they are needed, and entries waiting to be written
MOST_NAMED = 10  # images in one message


def fill_cache(
    prepared: Sequence[PreparedDataset],
    encode: Encode,
    settings: CacheSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatentCache:
    """The cache of all images. On disk each process makes its share of what is missing: let all finish before any reads.

    `on_progress` hears how many of how many images are done. At the end raises UserError if some cannot be read, or if
    the VAE makes no finite numbers of some; the others stay on the disk, so that the next call has only these to do.
    """
    cache = LatentCache(prepared, settings)
    if settings.on_disk:
        tidy_folders(prepared)
    missing = _survey(cache, encode)
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        _Filling(cache, encode, pool).run(missing, on_progress)
    return cache


def tidy_folders(prepared: Sequence[PreparedDataset]) -> None:
    """Remove what killed runs have left half-written beside the images."""
    for folder in {Path(record.path).parent for dataset in prepared for record in dataset.records}:
        remove_leftovers(folder)


def _survey(cache: LatentCache, encode: Encode) -> list[Place]:
    """What this process must encode: those of one size together, the largest first, so that memory runs out early or never."""
    share = cache.share_of_this_process()
    reasons = {
        place: "gone" if isinstance(reason, UserError) else reason  # loading it will say so, along with other bad images
        for place, reason in zip(share, read_each(cache.why_missing, share), strict=True)
    }
    checked = check_borrowed(cache, encode)
    reasons |= checked.refused
    if cache.settings.on_disk and not cache.settings.skip_cache_check:  # `read` must know what the others make, too
        others = [place for place in cache.places() if place not in reasons and not cache.record(place).is_latents]
        read_each(cache.fingerprint, others)
    missing = [place for place in share if reasons[place]]
    cache.report.encoded = dict(Counter(reason for reason in reasons.values() if reason))
    cache.report.borrowed, cache.report.checked = len(cache.borrowed), checked.encoded
    cache.report.reused = len(share) - len(missing) - len(cache.borrowed)
    cache.share_borrowed(cache.borrowed_by_path())
    return sorted(missing, key=lambda place: _largest_first(cache.record(place).bucket))


def _largest_first(bucket: tuple[int, int]) -> tuple[int, int]:
    width, height = bucket
    return -width * height, width


class _Image(NamedTuple):
    """What is encoded of an image, and kept beside its latents."""

    pixels: torch.Tensor  # [1, 3, H, W] float32 in [-1, 1]
    weights: np.ndarray | None  # [H, W] uint8

    def mirrored(self) -> _Image:
        return _Image(self.pixels.flip(-1), None if self.weights is None else self.weights[:, ::-1])


class _Filling:
    """One round of encoding: what it works with, and what goes wrong."""

    def __init__(self, cache: LatentCache, encode: Encode, pool: Executor):
        self._cache = cache
        self._encode = encode
        self._pool = pool
        self._unreadable: dict[str, str] = {}  # by path, why
        self._not_finite: list[str] = []  # paths
        self._fingerprints: dict[Place, str] = {}  # of the images at work

    def run(self, missing: list[Place], on_progress: Callable[[int, int], None]) -> None:
        """Encode and store; at the end raise what went wrong on the way."""
        loaded = read_ahead(self._pool, self._load, missing, LOOK_AHEAD)
        writing: deque[Future[None]] = deque()
        done = 0
        for batch in self._batches(missing):
            found = zip(batch, islice(loaded, len(batch)), strict=True)
            images = {place: image for place, image in found if image is not None}
            for place, versions in self._encode_batch(images).items():
                writing.append(self._pool.submit(self._store, place, versions))
            while len(writing) > LOOK_AHEAD:
                writing.popleft().result()
            done += len(batch)
            on_progress(done, len(missing))
        for future in writing:
            future.result()
        self._complain()

    def _batches(self, places: list[Place]) -> Iterator[list[Place]]:
        """Slices of the places, each of one size."""
        for _, same_size in groupby(places, key=lambda place: self._cache.record(place).bucket):
            while batch := list(islice(same_size, self._cache.settings.vae_batch_size)):
                yield batch

    def _load(self, place: Place) -> _Image | None:
        """An image as the VAE takes it; None, and a note, if it cannot be read."""
        try:
            if not self._cache.in_memory:  # before reading: if the image is replaced after this, the entry is known to be stale
                self._fingerprints[place] = self._cache.fingerprint(place)
            pixels = fixed_pixels(self._cache.record(place), self._cache.subset(place))
            return _Image(model_input([pixels.image]), pixels.weights)  # here, so that the thread that encodes need not do it
        except BadImage as error:
            self._unreadable[error.path] = error.reason
            return None

    def _encode_batch(self, images: dict[Place, _Image]) -> dict[Place, Versions]:
        """The latents of images of one size; an image without finite latents is noted and left out."""
        versions: dict[Place, Versions] = {place: {} for place in images}
        for flipped in (False, True):
            shown = {
                place: image.mirrored() if flipped else image
                for place, image in images.items()
                if self._cache.subset(place).flip_aug or not flipped
            }
            if not shown:
                continue
            batch = [image.pixels for image in shown.values()]
            together = batch[0] if len(batch) == 1 else torch.cat(batch)  # a copy waits for the threads that load
            posterior = self._encode(together, [self._cache.record(place).path for place in shown])
            means, stds = (tensor.float().cpu().numpy() for tensor in (posterior.mean, posterior.std))
            for (place, image), mean, std in zip(shown.items(), means, stds, strict=True):
                versions[place][flipped] = Latents(mean, std, image.weights)
        return {place: found for place, found in versions.items() if self._check_finite(place, found)}

    def _check_finite(self, place: Place, versions: Versions) -> bool:
        finite = all(np.isfinite(latents.mean).all() and np.isfinite(latents.std).all() for latents in versions.values())
        if not finite:
            self._not_finite.append(self._cache.record(place).path)
        return finite

    def _store(self, place: Place, versions: Versions) -> None:
        if self._cache.in_memory:
            self._cache.keep(place, versions)
        else:
            arrays = _entry_arrays(self._cache.record(place), versions)
            write_entry(self._cache.path_of(place), {**arrays, "fingerprint": np.array(self._fingerprints.pop(place))})

    def _complain(self) -> None:
        if self._unreadable:
            raise UserError(*(f"{path}: {reason}" for path, reason in sorted(self._unreadable.items())))
        if self._not_finite:
            names = ", ".join(sorted(self._not_finite)[:MOST_NAMED])
            more = f" and {len(self._not_finite) - MOST_NAMED} more" if len(self._not_finite) > MOST_NAMED else ""
            remedy = "use another --vae, or mend or remove them"
            raise UserError(f"the VAE makes no finite numbers of {names}{more}: {remedy}")


def _entry_arrays(record: ImageRecord, versions: Versions) -> dict[str, np.ndarray]:
    """What the entry of an image holds, by key, the fingerprint aside."""
    arrays = {"original_size": np.array(record.size), "crop_ltrb": np.array(crop_ltrb(record.size, record.bucket))}
    for flipped, latents in versions.items():
        ending = "_flipped" if flipped else ""
        generator = torch_generator("cached latents", Path(record.path).name, ending)
        noise = torch.randn(latents.mean.shape, generator=generator).numpy()
        arrays[f"latents{ending}"] = latents.mean + latents.std * noise  # one sample: what tools without the posterior read
        arrays[f"latents_mean{ending}"] = latents.mean
        arrays[f"latents_std{ending}"] = latents.std
    mask = versions[False].mask
    if mask is not None:
        arrays["alpha_mask"] = mask.astype(np.float32) / 255
    return arrays
