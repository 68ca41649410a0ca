"""What sd-scripts reads of our files, by its rules for them and with plain numpy."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from library.data.cache_fill import fill_cache
from tests.data.tiny_datasets import cache_settings, encode, prepare, subset_of, write_images


class Read(NamedTuple):
    """What it takes from a file."""

    latents: np.ndarray
    original_size: list[int]
    crop_ltrb: list[int]
    flipped_latents: np.ndarray | None
    alpha_mask: np.ndarray | None


def read_by_the_rules(image: Path, flip_aug: bool, alpha_mask: bool) -> Read:
    """A file named by the image's size, whose keys are enough for it to count as cached."""
    with Image.open(image) as opened:
        width, height = opened.size
    with np.load(image.with_name(f"{image.stem}_{width:04d}x{height:04d}_sd.npz")) as entry:  # pickles are refused by default
        needed = {"latents", *(["latents_flipped"] if flip_aug else []), *(["alpha_mask"] if alpha_mask else [])}
        assert needed <= set(entry.files)
        return Read(
            entry["latents"],
            entry["original_size"].tolist(),
            [int(value) for value in entry["crop_ltrb"]],
            entry["latents_flipped"] if flip_aug else None,
            entry["alpha_mask"] if alpha_mask else None,
        )


def fitted(size: tuple[int, int], bucket: tuple[int, int]) -> list[int]:
    """Left, top, right, bottom of an image that is fitted into its bucket."""
    (width, height), (bucket_width, bucket_height) = size, bucket
    if bucket_width / bucket_height > width / height:
        fitted_width, fitted_height = bucket_height * width / height, float(bucket_height)
    else:
        fitted_width, fitted_height = float(bucket_width), bucket_width * height / width
    left, top = (bucket_width - fitted_width) // 2, (bucket_height - fitted_height) // 2
    return [int(left), int(top), int(left + fitted_width), int(top + fitted_height)]


@pytest.mark.parametrize("flip_aug", [False, True])
@pytest.mark.parametrize("alpha_mask", [False, True])
def test_files_are_read_by_plain_numpy(tmp_path, flip_aug, alpha_mask):
    folder = write_images(tmp_path / "images", alpha=True)
    prepared = prepare(subset_of(folder, flip_aug=flip_aug, alpha_mask=alpha_mask))
    cache = fill_cache(prepared, encode, cache_settings())
    for index, record in enumerate(prepared[0].records):
        read = read_by_the_rules(Path(record.path), flip_aug, alpha_mask)
        width, height = record.bucket
        posterior = cache.read((0, index), False)
        assert (read.latents.shape, read.latents.dtype) == ((4, height // 8, width // 8), np.float32)
        assert read.original_size == list(record.size)
        assert read.crop_ltrb == fitted(record.size, record.bucket)
        assert 0.7 < ((read.latents - posterior.mean) / posterior.std).std() < 1.3  # a sample, not scaled by the model's factor
        if read.flipped_latents is not None:
            mirrored = cache.read((0, index), True)
            assert 0.7 < ((read.flipped_latents - mirrored.mean) / mirrored.std).std() < 1.3
        if read.alpha_mask is not None:
            assert (read.alpha_mask.shape, read.alpha_mask.dtype) == ((height, width), np.float32)
            assert 0 <= read.alpha_mask.min() < read.alpha_mask.max() <= 1
            np.testing.assert_array_equal(np.rint(read.alpha_mask * 255), posterior.mask)
