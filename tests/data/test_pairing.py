"""Class pictures beside as many others: what is in a batch, how evenly they take turns, and what is refused."""
from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.dataset import TrainingDataset
from library.data.order import TrainingOrder, epoch_batches
from library.data.records import ImageRecord, PreparedDataset
from library.data.report import data_report
from library.errors import UserError
from library.types import SampleRef
from tests.data.tiny_datasets import prepare, subset_of, write_images

BUCKETS = [(64, 64), (64, 128), (128, 64)]


def dataset_of(images: list[tuple[int, int]], classes: list[tuple[int, int]], batch_size: int) -> PreparedDataset:
    """A dataset in pairs of (bucket number, repeats) per image."""
    subset = SubsetSettings(image_dir=Path("images"))
    settings = DatasetSettings(resolution=(64, 64), batch_size=batch_size, paired_prior=True, subsets=(subset,))
    records = [
        ImageRecord(f"{number}.png", BUCKETS[bucket], "", False, 0, is_reg, repeats, BUCKETS[bucket], BUCKETS[bucket])
        for number, (is_reg, bucket, repeats) in enumerate([(False, *one) for one in images] + [(True, *one) for one in classes])
    ]
    return PreparedDataset(settings, records)


@st.composite
def paired_datasets(draw) -> PreparedDataset:
    """Every bucket that is trained has class pictures; there may be others."""
    images = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=8))
    classes = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=8))
    needed = [(bucket, 1) for bucket in sorted({bucket for bucket, _ in images})]
    return dataset_of(images, needed + classes, draw(st.integers(1, 4)))


def looked_up(dataset: PreparedDataset, batch: tuple[SampleRef, ...], epoch: int) -> list[ImageRecord]:
    entries = dataset.entries(epoch)
    return [dataset.records[entries[ref.entry]] for ref in batch]


@given(paired_datasets(), st.integers(0, 2**40), st.integers(1, 5))
def test_beside_each_batch_stand_as_many_class_pictures_of_its_shape(dataset, seed, epoch):
    seen: Counter[int] = Counter()
    for batch in epoch_batches([dataset], seed, epoch):
        found = looked_up(dataset, batch, epoch)
        half = len(found) // 2
        assert [record.is_reg for record in found] == [False] * half + [True] * half
        assert 1 <= half <= dataset.settings.batch_size
        assert len({record.bucket for record in found}) == 1
        seen.update(ref.entry for ref in batch[:half])
    assert seen == Counter(range(len(dataset.train_entries)))  # an epoch is one of these, repeats included


@given(paired_datasets(), st.integers(1, 12))
def test_class_pictures_of_a_shape_take_turns(dataset, epochs):
    """However often the run goes round, a picture was seen at most once more than another of its weight."""
    counts = Counter(index for epoch in range(1, epochs + 1) for index in dataset.entries(epoch) if dataset.records[index].is_reg)
    for ring in dataset.regularisation_rings:
        own = {index: counts[index] for index in set(ring.order)}
        weights = Counter(ring.order)
        rounds = [own[index] / weights[index] for index in own]
        assert max(rounds) - min(rounds) <= 1
        assert sum(own.values()) == epochs * ring.slots


def test_epochs_count_the_pictures_that_are_trained():
    dataset = dataset_of([(0, 2), (0, 1)], [(0, 1)] * 10, 2)
    order = TrainingOrder([dataset], 1, 1, 0, 1)
    assert order.batches_per_epoch == order.steps_per_epoch == 2
    assert dataset.regularisation_entry_count == 3


def test_no_two_processes_share_a_position():
    dataset = dataset_of([(0, 8)], [(0, 1)] * 10, 2)
    places = [next(TrainingOrder([dataset], 1, 1, rank, 2).places(1, 1)) for rank in range(2)]
    assert [(place.first_position, len(place.samples)) for place in places] == [(0, 4), (4, 4)]


def test_pairs_change_and_the_seed_decides():
    dataset = dataset_of([(0, 1)] * 4, [(0, 1)] * 4, 1)
    pairs = {
        (seed, epoch): {tuple(record.path for record in looked_up(dataset, batch, epoch)) for batch in epoch_batches([dataset], seed, epoch)}
        for seed in (1, 2) for epoch in (1, 2)
    }  # fmt: skip
    assert len({frozenset(found) for found in pairs.values()}) == 4


# --- pictures ---


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return write_images(tmp_path / "frog", [(64, 64), (64, 128)]), write_images(tmp_path / "class", [(64, 64)] * 3)


def of(folders, shapes: bool = False, **options) -> list[PreparedDataset]:
    frog, others = folders
    return prepare(
        subset_of(frog), subset_of(others, is_reg=True), enable_bucket=shapes, paired_prior=True, **options
    )


def test_the_batch_is_told_that_its_loss_is_the_sum_of_two_means(folders):
    (dataset,) = of(folders)
    (place,) = TrainingOrder([dataset], 1, 1, 0, 1).places(1, 1)
    batch = TrainingDataset([dataset], 1, 1, 0.3)[place]
    assert batch.loss_factor == 2
    assert batch.loss_weights.tolist() == pytest.approx([1, 1, 0.3, 0.3])
    assert [Path(path).parent.name for path in batch.image_paths] == ["frog", "frog", "class", "class"]


def test_without_pairs_the_loss_is_the_mean_of_all(folders):
    frog, others = folders
    (dataset,) = prepare(subset_of(frog), subset_of(others, is_reg=True))
    (place, *_) = TrainingOrder([dataset], 1, 1, 0, 1).places(1, 1)
    assert TrainingDataset([dataset], 1, 1, 0.3)[place].loss_factor == 1


def test_a_shape_without_class_pictures_is_refused(folders):
    with pytest.raises(UserError, match="no class picture has the shape 64x192 of 1.png; add class pictures"):
        of(folders, shapes=True)


def test_class_pictures_of_another_shape_are_named(tmp_path, folders):
    frog = write_images(tmp_path / "square", [(64, 64)])
    (dataset,) = of((frog, folders[0]), shapes=True)
    assert dataset.notes == ["paired_prior: 1 class pictures have a shape that no other picture has, and are not used, such as 1.png"]


def test_no_class_pictures(folders):
    with pytest.raises(UserError, match="paired_prior needs class pictures here; add a subset with is_reg = true"):
        prepare(subset_of(folders[0]), paired_prior=True, enable_bucket=False)


def test_a_dataset_that_is_held_out_needs_none(folders):
    held_out = dataclasses.replace(subset_of(folders[0]), validation_split=1.0)
    with pytest.raises(UserError, match="validation_split holds out every image"):
        prepare(held_out, paired_prior=True, enable_bucket=False)


def test_the_report_tells_of_them(folders):
    (line,) = [line for line in data_report(of(folders)).lines() if "regularisation" in line]
    assert line.strip() == "3 regularisation images, in turn, 2 an epoch, as many in each batch as others"
