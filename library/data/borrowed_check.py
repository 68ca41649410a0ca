"""Whether latents that another tool cached are those that our VAE makes: a few images are encoded again and compared."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from library.data.cache import LatentCache
from library.data.cache_file import Latents
from library.data.entry_file import digest
from library.data.pixels import Pixels, fixed_pixels, model_input
from library.data.records import Place
from library.errors import UserError
from library.types import Posterior

DRAWN = 3  # images of each group
SLACK = 0.05  # of the spread of an image's latents
MOST_DEVIATION = 1.5  # root mean square over the elements
MOST_MASK_DIFFERENCE = 5.0  # mean over the pixels, of 255


class Checked(NamedTuple):
    """How many images were encoded for comparison, and why which images must not be borrowed."""

    encoded: int
    refused: dict[Place, str]


def check_borrowed(cache: LatentCache, encode: Callable[[torch.Tensor, Sequence[str]], Posterior]) -> Checked:
    """Give back what the VAE speaks against: of one subset and one kind of file all or nothing, for one tool made them in one go."""
    groups: dict[tuple[int, int, int], list[Place]] = defaultdict(list)
    for place in cache.borrowed:
        groups[place[0], cache.record(place).subset, cache.borrowed.number(place)].append(place)
    encoded = 0
    refused: dict[Place, str] = {}
    for places in groups.values():
        drawn = sorted(places, key=lambda place: _telling_first(cache, place))[:DRAWN]
        bad = None
        for place in drawn:
            try:
                agrees = _agrees(cache, place, encode)
            except UserError:
                refused[place] = "gone"  # the image or the file; if it is the image, loading it will say so
                continue
            encoded += 1
            if not agrees:
                bad = Path(cache.record(place).path).name
                break
        if bad is not None:
            refused |= dict.fromkeys(places, f"in another tool's cache that is not of this VAE and these settings ({bad} shows it)")
    for place in refused:
        cache.borrowed.give_back(place)
    return Checked(encoded, refused)


def _telling_first(cache: LatentCache, place: Place) -> tuple[bool, int]:
    """The same order in each run. An image that is neither resized nor cropped could not tell that others are made otherwise now."""
    record = cache.record(place)
    return record.size == record.bucket, digest(Path(record.path).name)


def _agrees(cache: LatentCache, place: Place, encode: Callable[[torch.Tensor, Sequence[str]], Posterior]) -> bool:
    """Whether what is kept of an image, mirrored too if that is needed, may be drawn from the VAE's posterior of it."""
    pixels = fixed_pixels(cache.record(place), cache.subset(place))
    for flipped in (False, True) if cache.subset(place).flip_aug else (False,):
        shown = pixels.mirrored() if flipped else pixels
        posterior = encode(model_input([shown.image]), [cache.record(place).path])
        mean, std = (tensor[0].float().cpu().numpy() for tensor in (posterior.mean, posterior.std))
        kept = cache.read(place, flipped)
        if not may_be_drawn_from(kept.mean, mean, std) or not _same_mask(kept, shown):
            return False
    return True


def may_be_drawn_from(sample: np.ndarray, mean: np.ndarray, std: np.ndarray) -> bool:
    """Whether latents may be a sample of a posterior, all [C, h, w].

    Each element's distance from the mean is measured in units of sqrt(std^2 + (SLACK * spread)^2), where spread is the deviation of
    the means over the image. The posterior alone would not do: VAEs are so sure of themselves that the rounding of another precision,
    or another version of a JPEG decoder, is many times std. For a sample of the right image the root mean square of the
    distances is about 1 or less, however wide or narrow the posterior; over the 256 elements of the smallest latents in use it varies
    by 0.04, so that 1.5 is beyond chance. It is the square and not a quantile that decides, for where much of an image is plain
    background, a wrong crop or a mirrored version differs in a few elements only, but by many units.

    Measured with the VAE of the base model that ships with the project, its 22 drawings at 64 pixels and 6 of them at 512: the right
    image in fp32, bf16 or fp16 0.3 to 0.7; shifted by one pixel 2 to 5; enlarged by 2 % 2.5 to 8; mirrored 3 to 22; another image,
    or red and blue exchanged, 11 to 28.
    """
    if sample.shape != mean.shape or not np.isfinite(mean).all() or not np.isfinite(std).all():
        return False
    variance = np.square(std.astype(np.float64)) + (SLACK * float(mean.std())) ** 2
    distances = np.square(sample.astype(np.float64) - mean) / np.maximum(variance, np.finfo(np.float64).tiny)
    return bool(distances.mean() <= MOST_DEVIATION**2)


def _same_mask(kept: Latents, shown: Pixels) -> bool:
    if kept.mask is None or shown.weights is None:
        return kept.mask is shown.weights
    return float(np.abs(kept.mask.astype(np.float32) - shown.weights).mean()) <= MOST_MASK_DIFFERENCE
