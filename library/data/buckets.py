"""Which size (bucket) the model sees an image in, and to what size it is resized before it is cropped to that."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import floor, sqrt
from typing import TYPE_CHECKING, NamedTuple

from library.data.records import Size

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings

_REMEMBERED_SIZES = 4096


class Assignment(NamedTuple):
    """`resized` covers `bucket`; what protrudes is cropped."""

    bucket: Size
    resized: Size


def bucket_assigner(settings: DatasetSettings) -> Callable[[Size], Assignment]:
    """The function of an image's size that these settings ask for; it returns the very same tuples for the same size."""
    if not settings.enable_bucket:
        assign = partial(assign_single, resolution=settings.resolution)
    elif settings.bucket_no_upscale:
        assign = partial(assign_without_upscaling, resolution=settings.resolution, step=settings.bucket_reso_steps)
    else:
        buckets = make_buckets(
            settings.resolution, settings.min_bucket_reso, settings.max_bucket_reso, settings.bucket_reso_steps
        )
        assign = partial(assign_nearest, buckets=buckets)
    return lru_cache(maxsize=_REMEMBERED_SIZES)(assign)


def make_buckets(resolution: Size, min_side: int, max_side: int, step: int) -> list[Size]:
    """All (width, height) in multiples of `step` with about the area of `resolution`, sorted."""
    area = resolution[0] * resolution[1]
    square = max(step, step * floor(sqrt(area) / step))
    buckets = {(square, square)}
    for width in range(min_side, max_side + 1, step):
        height = min(max_side, step * (area // width // step))
        if height >= min_side:
            buckets |= {(width, height), (height, width)}
    return sorted(buckets)


def assign_single(size: Size, resolution: Size) -> Assignment:
    """Without buckets every image is resized to cover `resolution`, cached or not."""
    return Assignment(resolution, cover(size, resolution))


def assign_nearest(size: Size, buckets: Sequence[Size]) -> Assignment:
    """The bucket of the very size, else the first one whose width/height differs least."""
    if size in buckets:
        return Assignment(size, size)
    aspect = size[0] / size[1]
    bucket = min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))
    return Assignment(bucket, cover(size, bucket))


def assign_without_upscaling(size: Size, resolution: Size, step: int) -> Assignment:
    """A bucket made to measure, with about the area of `resolution` at most; smaller images keep their size.

    An image with a side under one step is the exception: it is enlarged to one step, so that no bucket has an empty side.
    """
    area = resolution[0] * resolution[1]
    resized = _shrunk(size, area, step) if size[0] * size[1] > area else size
    if min(resized) < step:
        scale = step / min(resized)
        resized = (_rounded(resized[0] * scale), _rounded(resized[1] * scale))
    width, height = (side // step * step for side in resized)
    if min(width, height) == step:  # a strip, which the enlarging may have made too long for the area
        longest = max(step, area // step // step * step)
        width, height = min(width, longest), min(height, longest)
    return Assignment((width, height), resized)


def cover(size: Size, bucket: Size) -> Size:
    """The size scaled so that it just covers the bucket."""
    wider_than_bucket = size[0] / size[1] > bucket[0] / bucket[1]
    scale = bucket[1] / size[1] if wider_than_bucket else bucket[0] / size[0]
    return _rounded(size[0] * scale), _rounded(size[1] * scale)


def _shrunk(size: Size, area: int, step: int) -> Size:
    """The size scaled down to `area` with one side in whole steps: of the two choices, the one that keeps the aspect better."""
    aspect = size[0] / size[1]
    width = sqrt(area * aspect)
    first_width = _whole_steps(width, step)
    first_height = _whole_steps(first_width / aspect, step)
    second_height = _whole_steps(area / width, step)
    second_width = _whole_steps(second_height * aspect, step)
    if abs(first_width / first_height - aspect) < abs(second_width / second_height - aspect):
        return first_width, _rounded(first_width / aspect)
    return _rounded(second_height * aspect), second_height


def _whole_steps(length: float, step: int) -> int:
    return max(step, _rounded(length) // step * step)


def _rounded(length: float) -> int:
    return floor(length + 0.5)
