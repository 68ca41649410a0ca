"""Which images a batch holds, and when: a function of the seed and the epoch alone, dealt out to the processes."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from library.data.records import PreparedDataset, Size
from library.errors import UserError
from library.seeding import python_random
from library.types import BatchPlace, SampleRef

Samples = tuple[SampleRef, ...]  # of one batch


def epoch_batches(prepared: Sequence[PreparedDataset], seed: int, epoch: int) -> list[Samples]:
    """The batches of an epoch: each bucket is shuffled and cut up, its last batch may be short; then all are shuffled.

    Where images are paired, class pictures follow as many others in each batch.
    """
    rng = python_random(seed, "order", epoch)
    batches = []
    for number, dataset in enumerate(prepared):
        size = dataset.entries_per_batch
        for _, groups in sorted(_groups_by_bucket(dataset).items()):
            for entries in groups:
                rng.shuffle(entries)
            for start in range(0, len(groups[0]), size):
                batches.append(tuple(SampleRef(number, entry) for entries in groups for entry in entries[start : start + size]))
    rng.shuffle(batches)
    return batches


class TrainingOrder:
    """The batches of one process, addressed by optimizer step, so that a run can start anywhere.

    In micro-step k of an epoch rank r has the epoch's batch number k * world_size + r. Where the last micro-step runs out
    of batches, a rank gets a copy of another one with share 0. All epochs are of equal length.
    """

    def __init__(self, prepared: Sequence[PreparedDataset], seed: int, accumulation: int, rank: int, world_size: int):
        self._prepared = prepared
        self._seed = seed
        self._accumulation = accumulation
        self._rank = rank
        self._world_size = world_size
        self.batches_per_epoch = count_batches(prepared)  # of all processes, copies not counted
        if not self.batches_per_epoch:
            raise UserError("the datasets hold no image to train on")
        self._micro_steps_per_epoch = _divide_up(self.batches_per_epoch, world_size)
        self.steps_per_epoch = _divide_up(self._micro_steps_per_epoch, accumulation)
        self._first_position = rank * max(dataset.samples_per_batch for dataset in prepared if dataset.records)

    def places(self, first_step: int, last_step: int) -> Iterator[BatchPlace]:
        """This process's batches of the optimizer steps first_step to last_step, 1-based, both included."""
        epoch, batches = 0, []
        for step in range(first_step, last_step + 1):
            epochs_before, step_in_epoch = divmod(step - 1, self.steps_per_epoch)
            if epoch != epochs_before + 1:
                epoch = epochs_before + 1
                batches = epoch_batches(self._prepared, self._seed, epoch)
            yield from self._places_of_step(batches, epoch, step, step_in_epoch)

    def _places_of_step(self, batches: list[Samples], epoch: int, step: int, step_in_epoch: int) -> Iterator[BatchPlace]:
        first = step_in_epoch * self._accumulation
        end = min(first + self._accumulation, self._micro_steps_per_epoch)  # the epoch's last step may be shorter
        real_batches = min(end * self._world_size, len(batches)) - first * self._world_size
        for micro_step in range(first, end):
            index = micro_step * self._world_size + self._rank
            yield BatchPlace(
                epoch=epoch,
                step=step,
                micro_step=micro_step - first,
                samples=batches[index % len(batches)],
                first_position=self._first_position,
                ends_step=micro_step == end - 1,
                ends_epoch=micro_step == self._micro_steps_per_epoch - 1,
                # Gradients are summed over micro-steps and averaged over processes.
                share=self._world_size / real_batches if index < len(batches) else 0.0,
            )


def largest_batch(prepared: Sequence[PreparedDataset]) -> int:
    """The largest batch size, without class pictures beside the others; datasets that are all held out do not count."""
    return max(dataset.settings.batch_size for dataset in prepared if dataset.records)


def count_batches(prepared: Sequence[PreparedDataset]) -> int:
    """The number of batches of every epoch over all processes."""
    return sum(
        _divide_up(len(groups[0]), dataset.entries_per_batch)
        for dataset in prepared
        for groups in _groups_by_bucket(dataset).values()
    )


def _groups_by_bucket(dataset: PreparedDataset) -> dict[Size, list[list[int]]]:
    """Numbers of the entries by the size of their bucket, which is the same in every epoch.

    They are one group; where images are paired, two groups of the same length: those that are trained, and class pictures.
    """
    buckets: dict[Size, list[list[int]]] = {}
    for entry, record_index in enumerate(dataset.entries(epoch=1)):
        record = dataset.records[record_index]
        groups = buckets.setdefault(record.bucket, [[], []] if dataset.is_paired else [[]])
        groups[record.is_reg and dataset.is_paired].append(entry)
    return buckets


def _divide_up(count: int, size: int) -> int:
    return -(-count // size)
