"""The order is a function of (seed, epoch), complete over all processes, and can be entered anywhere."""
from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.order import TrainingOrder, count_batches, epoch_batches
from library.data.records import ImageRecord, PreparedDataset
from library.errors import UserError

BUCKETS = [(64, 64), (64, 128), (128, 64)]


def dataset_of(images: list[tuple[int, int, bool]], batch_size: int, folder) -> PreparedDataset:
    """A dataset of (bucket number, repeats, is_reg) per image."""
    settings = DatasetSettings(resolution=(64, 64), batch_size=batch_size, subsets=(SubsetSettings(image_dir=folder),))
    records = [
        ImageRecord(f"{number}.png", BUCKETS[bucket], "", False, 0, is_reg, repeats, BUCKETS[bucket], BUCKETS[bucket])
        for number, (bucket, repeats, is_reg) in enumerate(images)
    ]
    return PreparedDataset(settings, records)


IMAGES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans()), min_size=1, max_size=12)


@st.composite
def prepared_datasets(draw) -> list[PreparedDataset]:
    first = dataset_of([(0, 1, False), *draw(IMAGES)], draw(st.integers(1, 5)), "a")
    others = draw(st.lists(st.tuples(IMAGES, st.integers(1, 5)), max_size=2))
    return [first, *(dataset_of([(1, 2, False), *images], size, "b") for images, size in others)]


@given(prepared_datasets(), st.integers(0, 2**40), st.integers(1, 4), st.integers(1, 3))
def test_each_epoch_holds_each_entry_exactly_once_over_all_ranks(prepared, seed, accumulation, world_size):
    orders = [TrainingOrder(prepared, seed, accumulation, rank, world_size) for rank in range(world_size)]
    steps = orders[0].steps_per_epoch
    for epoch in (1, 2):
        seen = Counter()
        batches = 0
        for order in orders:
            for place in order.places((epoch - 1) * steps + 1, epoch * steps):
                assert place.epoch == epoch
                if place.share > 0:
                    seen.update(place.samples)
                    batches += 1
        everything = {(number, entry) for number, dataset in enumerate(prepared) for entry in range(len(dataset.entries(epoch)))}
        assert {(ref.dataset, ref.entry) for ref in seen} == everything
        assert set(seen.values()) == {1}
        assert batches == count_batches(prepared) == orders[0].batches_per_epoch


@given(prepared_datasets(), st.integers(0, 9), st.integers(1, 4), st.integers(1, 3))
def test_a_batch_is_of_one_dataset_and_bucket_and_not_too_large(prepared, seed, accumulation, world_size):
    order = TrainingOrder(prepared, seed, accumulation, 0, world_size)
    for place in order.places(1, order.steps_per_epoch):
        (number,) = {ref.dataset for ref in place.samples}
        dataset, entries = prepared[number], prepared[number].entries(place.epoch)
        assert len({dataset.records[entries[ref.entry]].bucket for ref in place.samples}) == 1
        assert len(place.samples) <= dataset.settings.batch_size


@given(prepared_datasets(), st.integers(0, 9), st.integers(1, 4), st.integers(1, 3))
def test_shares_make_a_step_the_mean_of_its_real_batches(prepared, seed, accumulation, world_size):
    shares = defaultdict(list)
    places_of_ranks = []
    for rank in range(world_size):
        order = TrainingOrder(prepared, seed, accumulation, rank, world_size)
        places = list(order.places(1, 2 * order.steps_per_epoch))
        places_of_ranks.append([(place.step, place.micro_step, place.ends_step, place.ends_epoch) for place in places])
        for place in places:
            shares[place.step].append(place.share)
    assert all(marks == places_of_ranks[0] for marks in places_of_ranks)  # ranks agree on when a step is over
    for of_step in shares.values():
        assert sum(of_step) == pytest.approx(world_size)
        assert len({share for share in of_step if share > 0}) == 1


@given(prepared_datasets(), st.integers(1, 4), st.integers(1, 3), st.data())
def test_a_run_that_starts_at_any_step_has_the_tail_of_the_unbroken_one(prepared, accumulation, world_size, data):
    order = TrainingOrder(prepared, 7, accumulation, world_size - 1, world_size)
    last = 3 * order.steps_per_epoch
    first = data.draw(st.integers(1, last))
    unbroken = list(order.places(1, last))
    assert list(order.places(first, last)) == [place for place in unbroken if place.step >= first]


@given(prepared_datasets(), st.integers(1, 4), st.integers(1, 3))
def test_counters(prepared, accumulation, world_size):
    order = TrainingOrder(prepared, 3, accumulation, 0, world_size)
    places = list(order.places(1, 2 * order.steps_per_epoch))
    steps = [list(places_of_step) for _, places_of_step in groupby(places, key=lambda place: place.step)]
    assert [step[0].step for step in steps] == list(range(1, 2 * order.steps_per_epoch + 1))
    for step in steps:
        assert [place.micro_step for place in step] == list(range(len(step)))
        assert [place.ends_step for place in step] == [False] * (len(step) - 1) + [True]
        assert len(step) <= accumulation
    ends = [place.step for place in places if place.ends_epoch]
    assert ends == [order.steps_per_epoch, 2 * order.steps_per_epoch]


def test_order_depends_on_seed_and_epoch_alone():
    prepared = [dataset_of([(0, 3, False)] * 6, 2, "a")]
    assert epoch_batches(prepared, 1, 1) == epoch_batches(prepared, 1, 1)
    assert epoch_batches(prepared, 1, 1) != epoch_batches(prepared, 1, 2)
    assert epoch_batches(prepared, 1, 1) != epoch_batches(prepared, 2, 1)
    one = [place.samples for place in TrainingOrder(prepared, 1, 1, 0, 1).places(1, 9)]
    two = [list(TrainingOrder(prepared, 1, 3, rank, 2).places(1, 2)) for rank in range(2)]
    dealt = [place.samples for pair in zip(*two, strict=True) for place in pair if place.share > 0]
    assert dealt == one == epoch_batches(prepared, 1, 1)


def test_batches_of_several_datasets_are_mixed():
    prepared = [dataset_of([(0, 20, False)], 2, "a"), dataset_of([(1, 60, False)], 3, "b")]
    order = [batch[0].dataset for batch in epoch_batches(prepared, 5, 1)]
    assert order.count(0) == 10 and order.count(1) == 20
    assert order != sorted(order) and order != sorted(order, reverse=True)


def test_a_missing_batch_is_filled_with_a_copy_of_share_0():
    prepared = [dataset_of([(0, 5, False)], 1, "a")]
    places = [list(TrainingOrder(prepared, 1, 2, rank, 3).places(1, 1)) for rank in range(3)]
    assert [[place.share for place in of_rank] for of_rank in places] == [[3 / 5, 3 / 5], [3 / 5, 3 / 5], [3 / 5, 0.0]]
    assert len(places[2][1].samples) == 1


def test_a_position_is_given_to_one_rank_only():
    prepared = [dataset_of([(0, 6, False)], 2, "a"), dataset_of([(1, 6, False)], 3, "b")]
    assert [next(TrainingOrder(prepared, 1, 1, rank, 2).places(1, 1)).first_position for rank in range(2)] == [0, 3]


def test_no_images():
    with pytest.raises(UserError, match="no image"):
        TrainingOrder([dataset_of([], 1, "a")], 1, 1, 0, 1)


def test_a_dataset_that_is_held_out_changes_nothing():
    """Its batches are larger than all others, and it has no image left to train on."""
    trained, held_out = dataset_of([(0, 3, False), (1, 1, True)], 2, "a"), dataset_of([], 5, "b")
    alone, both = (list(TrainingOrder(prepared, 1, 1, 1, 2).places(1, 4)) for prepared in ([trained], [trained, held_out]))
    assert alone == both
