"""Regularisation images: as many entries as training images, spread evenly, in turn."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.records import ImageRecord, PreparedDataset
from library.data.regularisation import balanced_rings, share_out, walking_order

SQUARE, TALL, WIDE = (64, 64), (64, 128), (128, 64)


def prepared(training: list, regularisation: list) -> PreparedDataset:
    """From (bucket, repeats) per image."""
    settings = DatasetSettings(resolution=SQUARE, subsets=(SubsetSettings(image_dir=Path("images")),))
    images = [(False, *image) for image in training] + [(True, *image) for image in regularisation]
    records = [
        ImageRecord(f"{number}.png", bucket, "", False, 0, is_reg, repeats, bucket, bucket)
        for number, (is_reg, bucket, repeats) in enumerate(images)
    ]
    return PreparedDataset(settings, records)


def regularisation_counts(dataset: PreparedDataset, epoch: int) -> list[int]:
    counts = Counter(dataset.entries(epoch))
    return [counts[index] for index, record in enumerate(dataset.records) if record.is_reg]


def test_surplus_repeats_rotate():
    dataset = prepared([(SQUARE, 2)] * 5, [(SQUARE, 1)] * 3)
    assert [regularisation_counts(dataset, epoch) for epoch in (1, 2, 3, 4)] == [[4, 3, 3], [3, 4, 3], [3, 3, 4], [4, 3, 3]]


def test_surplus_images_rotate():
    dataset = prepared([(SQUARE, 1)] * 2, [(SQUARE, 1)] * 5)
    assert [regularisation_counts(dataset, epoch) for epoch in (1, 2, 3)] == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]


def test_large_repeats_are_no_more_than_the_training_images():
    dataset = prepared([(SQUARE, 1)] * 5, [(SQUARE, 4)] * 3)
    assert [regularisation_counts(dataset, epoch) for epoch in (1, 2, 3)] == [[2, 2, 1], [2, 1, 2], [1, 2, 2]]


def test_num_repeats_of_regularisation_images_are_weights():
    dataset = prepared([(SQUARE, 8)], [(SQUARE, 3), (SQUARE, 1)])
    assert regularisation_counts(dataset, 1) == [6, 2]
    assert walking_order({7: 4, 8: 2, 9: 2}) == (7, 8, 9, 7)


def test_no_regularisation_no_entries():
    dataset = prepared([(SQUARE, 2), (TALL, 1)], [])
    assert dataset.entries() == dataset.entries(5) == [0, 0, 1]
    assert dataset.regularisation_entry_count == 0


def test_only_regularisation_images_is_no_error_here():
    assert len(prepared([], [(SQUARE, 1)] * 2).entries()) == 1


@pytest.mark.parametrize(
    ("weights", "total", "shares"),
    [
        ([1, 1, 1], 9, [3, 3, 3]),
        ([1, 1, 1], 10, [4, 3, 3]),
        ([6, 3, 1], 10, [6, 3, 1]),
        ([100, 1], 10, [9, 1]),  # at least one, at the cost of the largest
        ([1, 1, 1], 2, [1, 1, 1]),  # more buckets than entries
        ([5, 4, 3], 0, [1, 1, 1]),
    ],
)
def test_share_out(weights, total, shares):
    buckets = [(64, 64 * number) for number in range(1, len(weights) + 1)]
    assert share_out(dict(zip(buckets, weights, strict=True)), total) == dict(zip(buckets, shares, strict=True))


IMAGES = st.lists(st.tuples(st.sampled_from([SQUARE, TALL, WIDE]), st.integers(1, 4)), min_size=1, max_size=10)


@given(IMAGES, IMAGES, st.integers(1, 1000))
def test_every_epoch_is_balanced_and_of_the_same_shape(training, regularisation, epoch):
    dataset = prepared(training, regularisation)
    first, later = dataset.entries(1), dataset.entries(epoch)
    assert [dataset.records[index].bucket for index in first] == [dataset.records[index].bucket for index in later]
    counts = Counter(later)
    repeats = [record.num_repeats for record in dataset.records if not record.is_reg]
    assert [counts[index] for index in range(len(training))] == repeats
    buckets = len({bucket for bucket, _ in regularisation})
    assert sum(regularisation_counts(dataset, epoch)) == max(sum(repeats), buckets) == dataset.regularisation_entry_count


@given(IMAGES, IMAGES)
def test_in_the_long_run_each_image_is_seen_as_often_as_its_weight(training, regularisation):
    dataset = prepared(training, regularisation)
    for ring in dataset.regularisation_rings:
        counts = Counter(index for epoch in range(1, len(ring.order) + 1) for index in ring.turn(epoch))
        weights = {index: dataset.records[index].num_repeats for index in ring.order}
        assert len({counts[index] / weight for index, weight in weights.items()}) == 1


def test_rings_do_not_depend_on_the_order_of_buckets():
    weights = {TALL: {0: 1}, SQUARE: {1: 1, 2: 1}}
    assert balanced_rings(weights, 6) == balanced_rings(dict(reversed(weights.items())), 6)
