"""What a batch holds: pixels, masks, captions and conditions, as functions of the seed and the place; cached or not."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from library.config.datasets import DatasetSettings
from library.data.cache_fill import fill_cache
from library.data.dataset import TrainingDataset
from library.data.image_files import BadImage
from library.data.images import fit_image, read_image
from library.data.order import TrainingOrder
from library.data.pixels import crop_ltrb, crop_top_left, in_range, model_input
from library.data.sources import prepare_datasets
from tests.data.tiny_datasets import SIZES, cache_settings, encode, prepare, subset_of, write_image, write_images

SEED = 11


def batches_of(prepared, cache=None, epochs=1, seed=SEED):
    dataset = TrainingDataset(prepared, seed, max_train_steps=100, prior_loss_weight=0.25, cache=cache)
    order = TrainingOrder(prepared, seed, 1, 0, 1)
    places = order.places(1, epochs * order.steps_per_epoch)
    return [dataset.completed(dataset[place]) for place in places]


def by_entry(batches, values):
    """One value per entry and epoch: values(batch) gives those of a batch."""
    return {
        (batch.place.epoch, ref.dataset, ref.entry): value
        for batch in batches
        for ref, value in zip(batch.place.samples, values(batch), strict=True)
    }


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


def test_images_are_those_of_the_files_resized_and_cropped(folder):
    prepared = prepare(subset_of(folder))
    records = prepared[0].records
    batches = batches_of(prepared)
    images = by_entry(batches, lambda batch: batch.images)
    assert len(images) == len(SIZES)
    for (_, _, entry), image in images.items():
        record = records[entry]
        expected = fit_image(read_image(record.path), record.resized, record.bucket)
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
        np.testing.assert_allclose(in_range(image).permute(1, 2, 0), expected.astype(np.float64) / 127.5 - 1, atol=1e-6)
    for batch in batches:
        assert batch.posterior is None and batch.masks is None
        assert batch.images.dtype == torch.uint8 and batch.loss_weights.dtype == torch.float32
        assert batch.original_sizes_hw.dtype == batch.crop_top_lefts.dtype == batch.target_sizes_hw.dtype == torch.int64
        entries = [ref.entry for ref in batch.place.samples]
        assert batch.image_paths == [records[entry].path for entry in entries]
        assert batch.original_sizes_hw.tolist() == [list(records[entry].size[::-1]) for entry in entries]
        assert batch.target_sizes_hw.tolist() == [list(batch.images.shape[-2:])] * len(entries)


def test_black_is_minus_1_and_white_is_1():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0] = 255
    assert model_input([image])[0, :, 0].eq(1).all() and model_input([image])[0, :, 1].eq(-1).all()


@pytest.mark.parametrize("options", [{}, {"flip_aug": True}, {"flip_aug": True, "alpha_mask": True}])
@pytest.mark.parametrize("on_disk", [True, False])
def test_a_cached_batch_is_the_encoded_uncached_one(tmp_path, options, on_disk):
    folder = write_images(tmp_path / "images", alpha=True)
    prepared = prepare(subset_of(folder, num_repeats=2, **options))
    cache = fill_cache(prepared, encode, cache_settings(on_disk=on_disk))
    for plain, cached in zip(batches_of(prepared), batches_of(prepared, cache), strict=True):
        expected = encode(in_range(plain.images))
        assert cached.images is None
        torch.testing.assert_close(cached.posterior.mean, expected.mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(cached.posterior.std, expected.std, atol=1e-6, rtol=0)
        for field in dataclasses.fields(plain):
            if field.name not in ("images", "posterior"):
                one, two = getattr(plain, field.name), getattr(cached, field.name)
                assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_the_mask_gets_the_crop_and_flip_of_its_image(tmp_path):
    folder = write_images(tmp_path / "images", alpha=True)  # alpha is a copy of red
    options = {"alpha_mask": True, "flip_aug": True, "random_crop": True, "resize_interpolation": "area"}
    batches = batches_of(prepare(subset_of(folder, num_repeats=4, **options)))
    assert {flipped for batch in batches for flipped in batch.flipped} == {True, False}
    for batch in batches:
        torch.testing.assert_close(batch.masks, batch.images[:, 0] / 255, atol=1e-6, rtol=0)


def test_an_image_without_a_mask_counts_fully_beside_one_with_a_mask(tmp_path):
    masked = write_images(tmp_path / "masked", [(128, 128)], alpha=True)
    plain = write_images(tmp_path / "plain", [(128, 128)])
    (batch,) = batches_of(prepare(subset_of(masked, alpha_mask=True), subset_of(plain)))
    masks = by_entry([batch], lambda batch: batch.masks)
    assert masks[1, 0, 1].eq(1).all()
    assert masks[1, 0, 0].lt(1).any()


def test_flips_mirror_half_of_the_entries_anew_in_each_epoch(tmp_path):
    folder = write_images(tmp_path / "images", [(128, 128)])
    prepared = prepare(subset_of(folder, num_repeats=100, flip_aug=True))
    images = by_entry(batches_of(prepared, epochs=2), lambda batch: batch.images)
    flipped = {key: not torch.equal(image, images[1, 0, 0]) for key, image in images.items()}
    for key, image in images.items():
        assert torch.equal(image, images[1, 0, 0].flip(-1) if flipped[key] else images[1, 0, 0])
    of_epochs = [[flipped[epoch, 0, entry] for entry in range(100)] for epoch in (1, 2)]
    assert of_epochs[0] != of_epochs[1]
    assert 70 < sum(map(sum, of_epochs)) < 130


def test_captions_are_drawn_for_each_repeat_and_epoch(tmp_path):
    folder = write_images(tmp_path / "images", [(128, 128)])
    prepared = prepare(subset_of(folder, num_repeats=6, caption={"shuffle_caption": True, "keep_tokens": 1}))
    captions = by_entry(batches_of(prepared, epochs=2), lambda batch: batch.captions)
    assert all(caption.startswith("one 0, ") for caption in captions.values())
    assert all(sorted(caption.split(", ")) == ["five", "four", "one 0", "three", "two"] for caption in captions.values())
    assert len(set(captions.values())) > 4
    assert captions == by_entry(batches_of(prepared, epochs=2), lambda batch: batch.captions)
    assert captions != by_entry(batches_of(prepared, epochs=2, seed=SEED + 1), lambda batch: batch.captions)


def test_the_epoch_and_the_step_reach_the_captions(folder):
    every_second = prepare(subset_of(folder, caption={"caption_dropout_every_n_epochs": 2}))
    captions = by_entry(batches_of(every_second, epochs=2), lambda batch: batch.captions)
    assert all((caption == "") == (epoch == 2) for (epoch, _, _), caption in captions.items())
    warming_up = prepare(subset_of(folder, caption={"token_warmup_step": 4, "token_warmup_min": 1}), batch_size=8)
    lengths = [len(batch.captions[0].split(",")) for batch in batches_of(warming_up, epochs=8)]
    assert lengths == sorted(lengths) and lengths[0] == 1 and lengths[-1] == 5


@pytest.mark.parametrize("option", ["random_crop", "color_aug"])
def test_augmentation_is_a_function_of_seed_epoch_and_entry(tmp_path, option):
    folder = write_images(tmp_path / "images", [(200, 100)])
    prepared = prepare(subset_of(folder, num_repeats=6, **{option: True}), enable_bucket=False)
    images = by_entry(batches_of(prepared, epochs=2), lambda batch: batch.images)
    again = by_entry(batches_of(prepared, epochs=2), lambda batch: batch.images)
    assert all(torch.equal(image, again[key]) for key, image in images.items())
    assert len({image.numpy().tobytes() for image in images.values()}) > 3


def test_crops_around_a_face_named_in_the_file(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "photo_150_50_40_40.png", (200, 100), seed=3)
    small = {"resolution": (64, 64), "enable_bucket": False}
    (around_face,) = batches_of(prepare(subset_of(folder, face_crop_aug_range=(2.0, 2.0)), **small))
    (centre,) = batches_of(prepare(subset_of(folder), **small))
    assert around_face.images.shape == centre.images.shape == (1, 3, 64, 64)
    assert not torch.equal(around_face.images, centre.images)


def test_regularisation_images_weigh_prior_loss_weight(tmp_path):
    train, reg = write_images(tmp_path / "train", SIZES[:3]), write_images(tmp_path / "reg", SIZES[3:])
    batches = batches_of(prepare(subset_of(train), subset_of(reg, is_reg=True)))
    weighed = {pair for batch in batches for pair in zip(batch.image_paths, batch.loss_weights.tolist(), strict=True)}
    assert len(weighed) == 6
    assert all(weight == (0.25 if Path(path).parent == reg else 1.0) for path, weight in weighed)


def test_templates_are_for_what_is_learned_and_not_for_its_class(tmp_path):
    train, reg = write_images(tmp_path / "train", SIZES[:1]), write_images(tmp_path / "reg", SIZES[:1])
    prepared = prepare(subset_of(train), subset_of(reg, is_reg=True))
    replacements = [("", ["a photo of zorb"]), ("zorb", "zorb zorb1")]
    dataset = TrainingDataset(prepared, SEED, max_train_steps=100, prior_loss_weight=1.0, replacements=replacements)
    captions = dict(
        pair for place in TrainingOrder(prepared, SEED, 1, 0, 1).places(1, 1)
        for pair in zip(dataset[place].image_paths, dataset[place].captions, strict=True)
    )  # fmt: skip
    assert {Path(path).parent.name: text for path, text in captions.items()} == {
        "train": "a photo of zorb zorb1",
        "reg": "one 0, two, three, four, five",
    }


def test_custom_attributes_go_with_their_images(tmp_path):
    first, second = (write_images(tmp_path / name, [(128, 128)]) for name in ("a", "b"))
    table = {"score": 3, "nested": {"list": [1, "x", True]}}
    (batch,) = batches_of(prepare(subset_of(first, custom_attributes=table), subset_of(second)))
    attributes = {Path(path).parent: found for path, found in zip(batch.image_paths, batch.custom_attributes, strict=True)}
    assert attributes == {first: table, second: {}}


def test_each_dataset_has_its_own_multiplier_resolution_and_batch_size(tmp_path):
    folder = write_images(tmp_path / "images", [(128, 128)] * 6)
    subsets = (subset_of(folder),)
    datasets = [
        DatasetSettings(resolution=(64, 64), batch_size=4, network_multiplier=0.5, subsets=subsets),
        DatasetSettings(resolution=(128, 64), batch_size=1, network_multiplier=-1.0, subsets=subsets),
    ]
    batches = batches_of(prepare_datasets(datasets), epochs=2)
    found = sorted((batch.network_multiplier, *batch.images.shape) for batch in batches)
    assert found == [(-1.0, 1, 3, 64, 128)] * 12 + [(0.5, 2, 3, 64, 64)] * 2 + [(0.5, 4, 3, 64, 64)] * 2


@pytest.mark.parametrize(
    ("size", "bucket", "expected", "top_left", "top_left_flipped"),
    [
        ((200, 100), (128, 128), (0, 32, 128, 96), (32, 0), (32, 0)),
        ((100, 200), (128, 128), (32, 0, 96, 128), (0, 32), (0, 32)),
        ((128, 128), (128, 128), (0, 0, 128, 128), (0, 0), (0, 0)),
        ((1000, 1500), (384, 640), (0, 32, 384, 608), (32, 0), (32, 0)),
        ((1501, 1000), (640, 384), (31, 0, 31 + 384 * 1.501, 384), (0, 31), (0, 640 - 607)),
    ],
)
def test_crop_values_that_sdxl_is_told(size, bucket, expected, top_left, top_left_flipped):
    assert crop_ltrb(size, bucket) == pytest.approx(expected)
    assert crop_top_left(size, bucket, flipped=False) == top_left
    assert crop_top_left(size, bucket, flipped=True) == top_left_flipped


def test_a_file_that_cannot_be_decoded_is_named(folder):
    prepared = prepare(subset_of(folder))
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])
    with pytest.raises(BadImage, match=r"2\.png"):
        batches_of(prepared)


def test_a_filler_holds_the_samples_of_a_real_batch(folder):
    prepared = prepare(subset_of(folder), batch_size=8)
    dataset = TrainingDataset(prepared, SEED, 100, 1.0)
    places = [next(TrainingOrder(prepared, SEED, 1, rank, 2).places(step, step)) for step in (1, 2, 3) for rank in (0, 1)]
    fillers = [place for place in places if place.share == 0]
    assert all(dataset[place].images.shape[0] == len(place.samples) > 0 for place in fillers)
