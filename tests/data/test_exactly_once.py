"""What arrives, whoever loads it: in each epoch every training image num_repeats times, and every class image in its turn."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.cache import LatentCache
from library.data.cache_file import Latents
from library.data.dataset import TrainingDataset
from library.data.loader import make_loader
from library.data.order import TrainingOrder
from library.data.records import ImageRecord, PreparedDataset
from library.data.report import data_report
from library.types import Batch
from tests.data.tiny_datasets import cache_settings

BUCKETS = [(64, 64), (64, 128), (128, 64)]
EPOCHS = 2
Images = list[tuple[int, int]]  # bucket number, num_repeats

images = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=7)
datasets = st.lists(st.tuples(images, images | st.just([]), st.integers(1, 4)), min_size=1, max_size=2)
seeds = st.integers(0, 2**63)


def prepared_dataset(number: int, training: Images, regularisation: Images, batch_size: int) -> PreparedDataset:
    subsets = (SubsetSettings(image_dir=Path("train")), SubsetSettings(image_dir=Path("class"), is_reg=True))
    of_both = [(0, *image) for image in training] + [(1, *image) for image in regularisation]
    records = [
        ImageRecord(f"{number}/{index}.png", BUCKETS[bucket], "", False, subset, subset == 1, repeats, BUCKETS[bucket], BUCKETS[bucket])
        for index, (subset, bucket, repeats) in enumerate(of_both)
    ]
    return PreparedDataset(DatasetSettings(resolution=(64, 64), batch_size=batch_size, subsets=subsets), records)


def cache_of(prepared: list[PreparedDataset]) -> LatentCache:
    """Latents of zeros, so that no image is opened."""
    cache = LatentCache(prepared, cache_settings(on_disk=False))
    for place in cache.places():
        width, height = cache.record(place).bucket
        zeros = np.zeros((4, height // 8, width // 8), np.float32)
        cache.keep(place, {False: Latents(zeros, zeros)})
    return cache


def loaded(prepared: list[PreparedDataset], order: TrainingOrder, seed: int, workers: int, first: int, last: int) -> Iterator[Batch]:
    dataset = TrainingDataset(prepared, seed, 100, 1.0, cache_of(prepared))
    return make_loader(dataset, order.places(first, last), workers)


def orders(prepared: list[PreparedDataset], seed: int, accumulation: int, processes: int) -> list[TrainingOrder]:
    return [TrainingOrder(prepared, seed, accumulation, rank, processes) for rank in range(processes)]


def shown(batch: Batch) -> tuple:
    return batch.place, batch.image_paths, batch.loss_weights.tolist()


def assert_exactly_once(prepared: list[PreparedDataset], batches: list[Batch], order: TrainingOrder) -> None:
    """`batches`: those of all processes."""
    report = data_report(prepared)
    for epoch in range(1, EPOCHS + 1):
        of_epoch = [batch for batch in batches if batch.place.epoch == epoch]
        real = [batch for batch in of_epoch if batch.place.share > 0]
        assert len(real) == order.batches_per_epoch
        seen = Counter(path for batch in real for path in batch.image_paths)
        for dataset, reported in zip(prepared, report.datasets, strict=True):
            training = {record.path: record.num_repeats for record in dataset.records if not record.is_reg}
            assert {path: seen[path] for path in training} == training
            classes = [record for record in dataset.records if record.is_reg]
            assert sum(seen[record.path] for record in classes) == reported.regularisation_entries
            for bucket, counts in reported.buckets.items():
                of_bucket = [record.path for record in dataset.records if record.bucket == bucket]
                assert sum(seen[path] for path in of_bucket) == counts.entries
        fillers = [batch for batch in of_epoch if batch.place.share == 0]
        copied = {tuple(batch.image_paths) for batch in real}
        assert all(tuple(batch.image_paths) in copied for batch in fillers)


@given(datasets, seeds, st.integers(1, 3), st.integers(1, 2), st.data())
def test_each_epoch_and_a_run_that_begins_in_its_middle(parts, seed, accumulation, processes, data):
    prepared = [prepared_dataset(number, *part) for number, part in enumerate(parts)]
    of_processes = orders(prepared, seed, accumulation, processes)
    last = EPOCHS * of_processes[0].steps_per_epoch
    unbroken = [list(loaded(prepared, order, seed, 0, 1, last)) for order in of_processes]
    assert_exactly_once(prepared, [batch for batches in unbroken for batch in batches], of_processes[0])
    first = data.draw(st.integers(1, last), label="first step of the resumed run")
    for order, batches in zip(of_processes, unbroken, strict=True):
        resumed = loaded(prepared, order, seed, 0, first, last)
        assert list(map(shown, resumed)) == [shown(batch) for batch in batches if batch.place.step >= first]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(parts=datasets, seed=seeds, accumulation=st.integers(1, 3), processes=st.integers(1, 2), data=st.data())
def test_any_number_of_workers(workers, parts, seed, accumulation, processes, data):
    prepared = [prepared_dataset(number, *part) for number, part in enumerate(parts)]
    of_processes = orders(prepared, seed, accumulation, processes)
    last = EPOCHS * of_processes[0].steps_per_epoch
    first = data.draw(st.integers(1, last), label="first step")
    for order in of_processes:
        by_workers = loaded(prepared, order, seed, workers, first, last)
        assert list(map(shown, by_workers)) == list(map(shown, loaded(prepared, order, seed, 0, first, last)))


@given(datasets, seeds, st.integers(1, 3))
def test_the_order_depends_on_seed_and_epoch_alone(parts, seed, accumulation):
    """Neither the number of processes, nor accumulation, nor where a run begins makes another epoch."""
    prepared = [prepared_dataset(number, *part) for number, part in enumerate(parts)]
    dealt = []
    for processes, micro_steps in ((1, 1), (2, accumulation)):
        of_processes = orders(prepared, seed, micro_steps, processes)
        of_ranks = [order.places(1, EPOCHS * order.steps_per_epoch) for order in of_processes]
        together = [place for places in zip(*of_ranks, strict=True) for place in places if place.share > 0]
        dealt.append([(place.epoch, place.samples) for place in together])
    assert dealt[0] == dealt[1]


@given(images, images, seeds, st.integers(1, 3))
def test_class_images_take_turns_until_all_were_seen_as_often_as_their_weight(training, regularisation, seed, batch_size):
    regularisation = [(0, repeats) for _, repeats in regularisation]  # of one bucket, so that one turn is theirs
    prepared = [prepared_dataset(0, training, regularisation, batch_size)]
    (ring,) = prepared[0].regularisation_rings
    order = TrainingOrder(prepared, seed, 1, 0, 1)
    seen: Counter[int] = Counter()
    for epoch in range(1, len(ring.order) + 1):
        entries = prepared[0].entries(epoch)
        for place in order.places((epoch - 1) * order.steps_per_epoch + 1, epoch * order.steps_per_epoch):
            seen.update(entries[ref.entry] for ref in place.samples)
    weights = {index: record.num_repeats for index, record in enumerate(prepared[0].records) if record.is_reg}
    assert len({seen[index] / weight for index, weight in weights.items()}) == 1
