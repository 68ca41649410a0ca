"""Which pictures are held out of training to measure it by, and how and when they are shown then: as they are, each once."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING

from library.data.order import epoch_batches
from library.data.records import PreparedDataset
from library.seeding import seed_from
from library.types import BatchPlace, SampleRef

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings, SubsetSettings


def held_out(names: Sequence[str], share: float, seed: int | None) -> set[int]:
    """The positions of the names that are held out: the first of them in an order that a hash of (seed, name) gives.

    Their number is the share, rounded half up. Unlike a shuffle the order of two names does not depend on any other name, so that
    a new picture moves at most one that was there before from one side to the other.
    """
    count = floor(len(names) * share + 0.5)
    if not count:
        return set()
    order = sorted(range(len(names)), key=lambda position: (seed_from("validation", seed or 0, names[position]), position))
    return set(order[:count])


def validation_datasets(prepared: Sequence[PreparedDataset]) -> list[PreparedDataset]:
    """The datasets of held-out pictures."""
    return [dataset.validation for dataset in prepared if dataset.validation is not None]


def with_held_out(prepared: Sequence[PreparedDataset]) -> list[PreparedDataset]:
    """All datasets of a run: those that are trained on, then those of held-out pictures."""
    return [*prepared, *validation_datasets(prepared)]


def validation_settings(dataset: DatasetSettings) -> DatasetSettings:
    """The settings that held-out pictures are shown with: nothing random but the choice between wildcards, no repeats."""
    return dataclasses.replace(dataset, subsets=tuple(map(_without_chance, dataset.subsets)), notes=())


def _without_chance(subset: SubsetSettings) -> SubsetSettings:
    caption = dataclasses.replace(
        subset.caption,
        shuffle_caption=False,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    return dataclasses.replace(
        subset, caption=caption, num_repeats=1, color_aug=False, flip_aug=False, random_crop=False, face_crop_aug_range=None
    )


def validation_places(
    datasets: Sequence[PreparedDataset], first_dataset: int, seed: int, most_batches: int | None
) -> list[BatchPlace]:
    """The batches of held-out pictures, each picture once, in an order that the seed gives; the same at every measurement.

    `first_dataset` is the number of the first dataset among all those of the run.
    """
    places = []
    position = 0
    for batch in epoch_batches(datasets, seed, epoch=1)[:most_batches]:
        samples = tuple(SampleRef(first_dataset + sample.dataset, sample.entry) for sample in batch)
        places.append(BatchPlace(1, 1, 0, samples, position, ends_step=False, ends_epoch=False, share=1.0))
        position += len(samples)
    return places
