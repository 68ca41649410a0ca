"""Which pictures are held out: disjoint, stable, by name; and how they are prepared."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings
from library.data.sources import prepare_datasets
from library.data.validation import held_out, validation_datasets, validation_places
from library.errors import UserError
from tests.data.test_dataset import batches_of
from tests.data.test_described import describe
from tests.data.test_masks import write_masks
from tests.data.tiny_datasets import prepare, subset_of, write_images

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=6), unique=True, min_size=1, max_size=60)


def names_of(records) -> set[str]:
    return {Path(record.path).name for record in records}


def split(prepared) -> tuple[set[str], set[str]]:
    """Names of the pictures that are trained on, and of those that are held out."""
    return (
        {name for dataset in prepared for name in names_of(dataset.records)},
        {name for dataset in validation_datasets(prepared) for name in names_of(dataset.records)},
    )


@settings(deadline=None)
@given(NAMES, st.floats(0, 1), st.integers(0, 99))
def test_the_number_is_the_share_rounded(names, share, seed):
    held = held_out(names, share, seed)
    assert abs(len(held) - len(names) * share) <= 0.5 + 1e-9
    assert held <= set(range(len(names)))


@settings(deadline=None)
@given(NAMES, st.floats(0, 1), st.integers(0, 99), st.data())
def test_new_pictures_move_few_that_were_there(names, share, seed, data):
    """One new picture takes at most one place; nobody else changes sides."""
    before = {names[position] for position in held_out(names, share, seed)}
    new = data.draw(st.text("ijk", min_size=1, max_size=4))
    place = data.draw(st.integers(0, len(names)))
    more = [*names[:place], new, *names[place:]]
    after = {more[position] for position in held_out(more, share, seed)}
    assert len(before - after) <= 1
    assert len(after - before - {new}) <= 1
    assert len((before ^ after) - {new}) <= 1


def test_the_seed_decides_and_none_is_a_seed_too():
    names = [f"{number}.png" for number in range(40)]
    assert held_out(names, 0.25, 1) != held_out(names, 0.25, 2)
    assert held_out(names, 0.25, None) == held_out(names, 0.25, 0)
    assert held_out(list(reversed(names)), 0.25, 1) == {39 - position for position in held_out(names, 0.25, 1)}


@pytest.mark.parametrize("seed", [None, 3])
def test_held_out_pictures_are_not_trained_on(tmp_path, seed):
    folder = write_images(tmp_path / "images", [(64, 64)] * 20)
    prepared = prepare(subset_of(folder, validation_split=0.25, validation_seed=seed, num_repeats=3))
    trained, held = split(prepared)
    assert (len(trained), len(held)) == (15, 5)
    assert not trained & held
    assert len(prepared[0].train_entries) == 45
    assert prepared[0].notes == ["subset images: 5 of 20 images are held out (validation_split = 0.25)"]
    assert split(prepare(subset_of(folder, validation_split=0.25, validation_seed=seed))) == (trained, held)


def test_three_pictures_halved_are_three_pictures(tmp_path):
    """Where the two parts were rounded each by itself, one was in both."""
    trained, held = split(prepare(subset_of(write_images(tmp_path, [(64, 64)] * 3), validation_split=0.5)))
    assert len(trained) + len(held) == 3 and not trained & held


def test_held_out_pictures_are_shown_as_they_are_each_once(tmp_path):
    folder = write_images(tmp_path / "images", [(96, 64)] * 4)
    caption = {
        "shuffle_caption": True, "caption_dropout_rate": 1.0, "caption_dropout_every_n_epochs": 1, "caption_tag_dropout_rate": 0.9,
        "token_warmup_step": 100, "caption_prefix": "sls",
    }  # fmt: skip
    subset = subset_of(folder, validation_split=0.5, num_repeats=5, flip_aug=True, color_aug=True, random_crop=True, caption=caption)
    (validation,) = validation_datasets(prepare(subset, batch_size=3, network_multiplier=0.5))
    assert validation.entries() == [0, 1] and validation.validation is None
    epochs = [batches_of([validation], epochs=1, seed=seed) for seed in (1, 2)]
    for batches in epochs:
        (batch,) = batches
        assert batch.flipped == [False, False] and batch.network_multiplier == 0.5
        numbers = [Path(path).stem for path in batch.image_paths]
        assert batch.captions == [f"sls one {number}, two, three, four, five" for number in numbers]
    first, second = (dict(zip(batch.image_paths, batch.images, strict=True)) for (batch,) in epochs)
    assert all(first[path].equal(second[path]) for path in first)


def test_a_whole_subset_for_validation(tmp_path):
    train, judge = write_images(tmp_path / "train", [(64, 64)] * 3), write_images(tmp_path / "judge", [(64, 64)] * 2)
    prepared = prepare(subset_of(train), subset_of(judge, validation_split=1.0))
    assert [Path(record.path).parent.name for record in prepared[0].records] == ["train"] * 3
    (validation,) = validation_datasets(prepared)
    assert [Path(record.path).parent.name for record in validation.records] == ["judge"] * 2
    assert validation.settings.subsets[validation.records[0].subset].image_dir == judge


def test_a_whole_dataset_for_validation(tmp_path):
    train, judge = write_images(tmp_path / "train", [(64, 64)] * 3), write_images(tmp_path / "judge", [(64, 64)] * 2)
    datasets = [
        DatasetSettings(resolution=(64, 64), subsets=(subset_of(train),)),
        DatasetSettings(resolution=(128, 128), subsets=(subset_of(judge, validation_split=1.0),)),
    ]
    prepared = prepare_datasets(datasets)
    assert [len(dataset.records) for dataset in prepared] == [3, 0]
    assert len(batches_of(prepared)) == 3
    with pytest.raises(UserError, match="validation_split holds out every image"):
        prepare_datasets(datasets[1:])


def test_regularisation_stays_complete(tmp_path):
    train, reg = write_images(tmp_path / "train", [(64, 64)] * 4), write_images(tmp_path / "reg", [(64, 64)] * 4)
    prepared = prepare(subset_of(train, validation_split=0.5), subset_of(reg, is_reg=True))
    assert sum(record.is_reg for record in prepared[0].records) == 4
    assert not any(record.is_reg for record in validation_datasets(prepared)[0].records)


def test_described_and_masked_pictures_are_split_too(tmp_path):
    images = write_images(tmp_path / "images", [(64, 64)] * 8)
    masks = write_masks(images, tmp_path / "masks")
    file = describe(tmp_path, {str(number): {"caption": "x"} for number in range(8)})
    described = dataclasses.replace(subset_of(images, validation_split=0.25), metadata_file=file)
    masked = subset_of(images, validation_split=0.25, conditioning_data_dir=masks)
    splits = []
    for subset in (described, masked):
        prepared = prepare(subset)
        splits.append(split(prepared))
        assert [len(part) for part in splits[-1]] == [6, 2]
    assert splits[0] == splits[1]
    (batch,) = batches_of(validation_datasets(prepared))
    assert batch.masks is not None


def test_places_hold_each_picture_once_in_an_order_that_stays(tmp_path):
    train, judge = (write_images(tmp_path / name) for name in ("train", "judge"))
    prepared = prepare(subset_of(train, validation_split=0.5), subset_of(judge, validation_split=1.0))
    datasets = validation_datasets(prepared)
    places = validation_places(datasets, len(prepared), seed=1, most_batches=None)
    samples = [sample for place in places for sample in place.samples]
    assert {sample.dataset for sample in samples} == {1}
    assert sorted(sample.entry for sample in samples) == list(range(9))
    firsts = [place.first_position for place in places]
    assert firsts == [sum(len(place.samples) for place in places[:number]) for number in range(len(places))]
    assert validation_places(datasets, len(prepared), seed=1, most_batches=None) == places
    assert validation_places(datasets, len(prepared), seed=1, most_batches=2) == places[:2]
    assert validation_places(datasets, len(prepared), seed=2, most_batches=None) != places
    for place in places:
        assert len({datasets[0].records[sample.entry].bucket for sample in place.samples}) == 1
