"""Masks in a folder of their own: pairing, sizes, and that each pixel keeps its weight through crops, flips and caches."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.cache import check_cacheable
from library.data.cache_fill import fill_cache
from library.data.sources import prepare_datasets
from library.errors import UserError
from tests.data.test_dataset import batches_of, by_entry
from tests.data.tiny_datasets import SIZES, cache_settings, encode, prepare, subset_of, write_images


def write_masks(images: Path, masks: Path) -> Path:
    """A mask for each picture: the very picture, in grey, so that crops and flips can be compared with its red channel."""
    masks.mkdir(parents=True, exist_ok=True)
    for path in images.glob("*.png"):
        red = np.asarray(Image.open(path))[..., 0]
        Image.fromarray(red).save(masks / f"{path.stem}.png")
    return masks


@pytest.fixture
def pair(tmp_path):
    images = write_images(tmp_path / "images")
    return images, write_masks(images, tmp_path / "masks")


def masked(pair, **options) -> SubsetSettings:
    return subset_of(pair[0], conditioning_data_dir=pair[1], **options)


def mistakes_of(subset: SubsetSettings, on_bad_image: str = "stop") -> list[str]:
    with pytest.raises(UserError) as caught:
        prepare_datasets([DatasetSettings(resolution=(64, 64), subsets=(subset,))], on_bad_image)
    return list(caught.value.messages)


@pytest.mark.parametrize(
    ("options", "dataset"),
    [
        ({}, {}),
        ({"flip_aug": True}, {}),
        ({"random_crop": True, "flip_aug": True, "num_repeats": 3}, {}),
        ({"random_crop": True}, {"bucket_no_upscale": True}),
        ({"flip_aug": True}, {"enable_bucket": False, "resolution": (64, 192)}),
        ({"face_crop_aug_range": (2.0, 4.0), "random_crop": True}, {"enable_bucket": False}),
    ],
)
def test_the_mask_gets_the_crop_and_flip_of_its_image(pair, options, dataset):
    batches = batches_of(prepare(masked(pair, resize_interpolation="area", **options), **dataset))
    for batch in batches:
        torch.testing.assert_close(batch.masks, batch.images[:, 0] / 255, atol=1e-6, rtol=0)


def test_a_stripe_lands_where_it_is_in_the_image(tmp_path):
    """A stripe at 60 of a 200x100 image is at 7 of a 64x64 bucket."""
    pixels = np.zeros((100, 200), np.uint8)
    pixels[:, 58:62] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / folder / "a.png")
    subset = subset_of(tmp_path / "images", conditioning_data_dir=tmp_path / "masks")
    (batch,) = batches_of(prepare(subset, enable_bucket=False, resolution=(64, 64)))
    for row in (batch.masks[0, 32], batch.images[0, 0, 32] / 255):
        assert abs(float((row * torch.arange(64)).sum() / row.sum()) - 6.4) < 0.5


@pytest.mark.parametrize("on_disk", [True, False])
def test_caches_hold_the_mask(pair, on_disk):
    prepared = prepare(masked(pair, flip_aug=True, num_repeats=2))
    cache = fill_cache(prepared, encode, cache_settings(on_disk=on_disk))
    plain, cached = (by_entry(batches_of(prepared, found), lambda batch: batch.masks) for found in (None, cache))
    assert plain.keys() == cached.keys()
    for entry, mask in plain.items():
        torch.testing.assert_close(cached[entry], mask, atol=1e-6, rtol=0)
    if on_disk:
        again = fill_cache(prepared, encode, cache_settings())
        assert (again.report.reused, again.report.encoded) == (len(SIZES), {})


def test_another_mask_makes_the_cache_stale(pair):
    prepared = prepare(masked(pair))
    fill_cache(prepared, encode, cache_settings())
    Image.new("L", SIZES[0], 7).save(pair[1] / "0.png")
    os.utime(pair[1] / "0.png", ns=(1, 1))
    cache = fill_cache(prepared, encode, cache_settings())
    assert cache.report.encoded == {"made with another mask": 1}
    masks = by_entry(batches_of(prepared, cache), lambda batch: batch.masks)
    assert torch.allclose(masks[1, 0, 0], torch.tensor(7 / 255))


def test_the_same_pictures_with_and_without_masks_do_not_share_a_cache(pair):
    plain = DatasetSettings(resolution=(64, 64), subsets=(subset_of(pair[0]),))
    with_masks = DatasetSettings(resolution=(64, 64), subsets=(masked(pair),))
    prepared = prepare_datasets([plain, with_masks])
    fill_cache(prepared, encode, cache_settings())
    cache = fill_cache(prepared, encode, cache_settings())
    assert cache.report.encoded == {}
    for batch in batches_of(prepared, cache):
        assert (batch.masks is not None) == (batch.place.samples[0].dataset == 1)


def test_the_red_channel_counts_even_under_transparency(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    Image.new("RGBA", (64, 64), (51, 255, 255, 0)).save(tmp_path / "masks" / "a.webp", lossless=True, exact=True)
    subset = subset_of(tmp_path / "images", conditioning_data_dir=tmp_path / "masks")
    (batch,) = batches_of(prepare(subset))
    assert torch.allclose(batch.masks, torch.tensor(0.2))


def test_what_is_without_a_partner_is_told_at_once(pair):
    images, masks = pair
    (masks / "0.png").unlink()
    (masks / "1.png").rename(masks / "11.png")
    Image.new("L", SIZES[2]).save(masks / "2.jpg")
    messages = mistakes_of(masked(pair))
    where = "subset images conditioning_data_dir"
    assert [message.removeprefix(f"{where}: ") for message in messages] == [
        f'"0.png" has no mask in "{masks}"',
        f'"1.png" has no mask in "{masks}"',
        f'the mask "{masks / "11.png"}" has no picture',
        f'"2.jpg" and "2.png" in "{masks}" are masks of one picture',
    ]


def test_a_mask_of_another_size_is_named_with_its_picture(pair):
    images, masks = pair
    for name, size in (("0.png", (48, 48)), ("3.png", (64, 64))):
        Image.new("L", size).save(masks / name)
    messages = mistakes_of(masked(pair))
    assert messages[0] == (
        f"{images / '0.png'}: has 96x96 pixels, its mask {masks / '0.png'} has 48x48 pixels; make them the same size"
    )
    assert messages[1].startswith(f"{images / '3.png'}: has 128x128 pixels")
    (prepared,) = prepare_datasets([DatasetSettings(resolution=(64, 64), subsets=(masked(pair),))], "skip")
    assert [Path(record.path).name for record in prepared.records] == ["1.png", "2.png", "4.png", "5.png"]
    assert len(prepared.skipped) == 2


def test_a_broken_mask_is_a_bad_image(pair):
    (pair[1] / "1.png").write_bytes(b"")
    messages = mistakes_of(masked(pair))
    assert messages[0] == f"{pair[0] / '1.png'}: its mask {pair[1] / '1.png'} is empty (0 bytes)"


def test_epoch_and_step_reach_masked_datasets(pair):
    every_second = prepare(masked(pair, caption={"caption_dropout_every_n_epochs": 2}))
    captions = by_entry(batches_of(every_second, epochs=2), lambda batch: batch.captions)
    assert all((caption == "") == (epoch == 2) for (epoch, _, _), caption in captions.items())
    warming_up = prepare(masked(pair, caption={"token_warmup_step": 4}), batch_size=8)
    lengths = [len(batch.captions[0].split(",")) for batch in batches_of(warming_up, epochs=8)]
    assert lengths == sorted(lengths) and lengths[0] == 1 and lengths[-1] == 5


def test_masked_pictures_cannot_be_cached_with_colours_that_change(pair):
    """The guards see these subsets too."""
    with pytest.raises(UserError, match="subset images: color_aug cannot be cached"):
        check_cacheable(prepare(masked(pair, color_aug=True)))
