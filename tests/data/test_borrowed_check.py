"""Latents that another tool cached are used only if the VAE makes the same of a few of the images."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from library.data.borrowed_check import may_be_drawn_from
from library.data.pixels import fixed_pixels, model_input
from library.errors import UserError
from library.types import Posterior
from tests.data.another_tool import NAMES, Arrays, cache_of_another_tool, change, encode, filled
from tests.data.tiny_datasets import SIZES, prepare, subset_of, write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def another_vae(images: torch.Tensor, paths: Sequence[str] = ()) -> Posterior:
    posterior = encode(images)
    return Posterior(posterior.mean.roll(1, dims=1), posterior.std)


WRONG = "in another tool's cache that is not of this VAE and these settings"


@pytest.mark.parametrize("named", NAMES)
def test_latents_of_another_vae_are_all_encoded_again(folder, named):
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared, named)
    cache = filled(prepared, another_vae)
    (reason,) = cache.report.encoded
    assert reason.startswith(WRONG) and cache.report.encoded[reason] == 6 and cache.report.borrowed == 0
    image = fixed_pixels(prepared[0].records[0], prepared[0].settings.subsets[0]).image
    np.testing.assert_allclose(cache.read((0, 0), False).mean, another_vae(model_input([image])).mean[0], atol=1e-6)
    assert filled(prepared, another_vae).report.reused == 6


def mirrored(arrays: Arrays) -> Arrays:
    return {"latents": arrays["latents"][..., ::-1]}


def wrong_mirror_image(arrays: Arrays) -> Arrays:
    return {"latents_flipped": arrays["latents"]}


def wrong_mask(arrays: Arrays) -> Arrays:
    return {"alpha_mask": arrays["alpha_mask"][:, ::-1]}


def scaled(arrays: Arrays) -> Arrays:
    return {"latents": arrays["latents"] * 0.18215}


@pytest.mark.parametrize("wrong", [mirrored, wrong_mirror_image, wrong_mask, scaled])
def test_what_is_kept_must_be_of_the_very_pixels(tmp_path, wrong):
    options = {"flip_aug": True, "alpha_mask": True}
    folder = write_images(tmp_path / "images", alpha=True)
    prepared = prepare(subset_of(folder, **options))
    for file in cache_of_another_tool(prepared).values():
        with np.load(file) as entry:
            change(file, **wrong(dict(entry)))
    cache = filled(prepared)
    (reason,) = cache.report.encoded
    assert reason.startswith(WRONG) and cache.report.borrowed == 0


def test_other_settings_of_the_same_bucket_are_noticed_by_images_that_show_them(tmp_path):
    """Most images have the size of their bucket, and are the same whether or not the others were enlarged."""
    folder = write_images(tmp_path / "images", [*[(128, 128)] * 20, (150, 150)])
    same_bucket = {"min_bucket_reso": 64, "bucket_reso_steps": 64}
    (record,) = (record for record in prepare(subset_of(folder), **same_bucket)[0].records if record.size == (150, 150))
    assert record.resized == record.bucket == (128, 128)
    prepared = prepare(subset_of(folder), **same_bucket)
    for dataset in prepared:
        for each in dataset.records:
            each.resized = each.size  # cut out of the middle instead
    cache_of_another_tool(prepared)
    cache = filled(prepare(subset_of(folder), **same_bucket))
    (reason,) = cache.report.encoded
    assert reason == f"{WRONG} (20.png shows it)" and cache.report.encoded[reason] == 21


def test_each_subset_and_each_kind_of_file_is_judged_by_itself(tmp_path):
    one, two = write_images(tmp_path / "one"), write_images(tmp_path / "two", SIZES[::-1])
    prepared = prepare(subset_of(one), subset_of(two))
    files = cache_of_another_tool(prepare(subset_of(one)))
    for file in cache_of_another_tool(prepare(subset_of(two)), "train_db").values():
        with np.load(file) as entry:
            change(file, **mirrored(dict(entry)))
    for name in ("0.png", "1.png"):
        files[name].unlink()
    older_cache = cache_of_another_tool(prepare(subset_of(one)), "older")
    for name, file in older_cache.items():
        if name not in ("0.png", "1.png"):
            file.unlink()
    cache = filled(prepared)
    assert (cache.report.borrowed, sum(cache.report.encoded.values())) == (6, 6)
    assert cache.report.checked == 3 + 2 + 1


def test_the_same_images_are_checked_in_each_run(tmp_path):
    folder = write_images(tmp_path / "images", [(150, 90)] * 8)
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared)
    seen = []

    def noting(images: torch.Tensor, paths: list[str]) -> Posterior:
        seen.append(images.sum().item())
        return encode(images)

    for _ in range(2):
        filled(prepared, noting)
    assert len(seen) == 6 and seen[:3] == seen[3:] and len(set(seen)) == 3


def test_an_image_that_is_gone_is_named_and_not_judged_by(folder):
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared)
    (folder / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: is gone") as caught:
        filled(prepared)
    assert len(caught.value.messages) == 1


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_file_that_changes_during_the_run_is_not_used(folder, how):
    prepared = prepare(subset_of(folder))
    files = cache_of_another_tool(prepared, "train_db")
    cache = filled(prepared)
    if how == "removed":
        files["0.png"].unlink()
    else:
        change(files["0.png"], latents=np.zeros((4, 16, 16)))
        os.utime(files["0.png"], ns=(1, 1))
    with pytest.raises(UserError, match=r"0_0096x0096_sdxl\.npz was changed or removed"):
        cache.read((0, 0), False)
    cache.read((0, 1), False)


SHAPE = (4, 8, 8)


@pytest.mark.parametrize("std", [1e-6, 0.01, 1.0, 30.0])
def test_samples_of_a_posterior_of_any_width_are_taken_for_what_they_are(std):
    generator = np.random.default_rng(0)
    for _ in range(200):
        mean = generator.normal(0, 5, SHAPE)
        sample = generator.normal(mean, std)
        rounded = sample + generator.normal(0, 0.03 * mean.std(), SHAPE)  # as of half precision
        assert may_be_drawn_from(sample, mean, np.full(SHAPE, std))
        assert may_be_drawn_from(rounded, mean, np.full(SHAPE, std))


@pytest.mark.parametrize("std", [1e-6, 0.01, 1.0])
def test_samples_of_another_posterior_are_not(std):
    generator = np.random.default_rng(0)
    for _ in range(200):
        mean, other = generator.normal(0, 5, (2, *SHAPE))
        deviation = np.full(SHAPE, std)
        assert not may_be_drawn_from(generator.normal(other, std), mean, deviation)
        assert not may_be_drawn_from(generator.normal(mean[..., ::-1], std), mean, deviation)
        background = np.where(np.arange(8) < 6, 1.0, mean)  # three quarters are plain
        assert not may_be_drawn_from(generator.normal(background[:, ::-1], std), background, deviation)
    assert not may_be_drawn_from(np.zeros((16, 8, 8)), mean, deviation)
    assert not may_be_drawn_from(mean, mean * np.nan, deviation)
