"""Batches in the order of their places, made by this process or by workers ahead of time: the same ones either way."""
from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.util import Finalize
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from library.data.dataset import TrainingDataset
from library.data.foreign_batches import ForeignDataset
from library.errors import UserError
from library.types import Batch, BatchPlace


def worker_count(at_most: int, asked_for: bool, dataset: TrainingDataset | ForeignDataset) -> int:
    """How many processes make batches: `at_most`, but fewer than the CPU has threads; 0 means this process.

    With everything in memory there is next to nothing to make: workers are started only if the person `asked_for` a number.
    """
    if dataset.is_in_memory and not asked_for:
        return 0
    return max(0, min(at_most, _cpu_threads() - 1))


def make_loader(
    dataset: TrainingDataset | ForeignDataset, places: Iterable[BatchPlace], workers: int, start_method: str | None = None
) -> Iterator[Batch]:
    """The batch of each place. Workers are told the place itself, and live until the places end or the iterator is closed.

    `start_method` of the workers ("fork", "spawn", "forkserver"): by default the platform's. Raises the UserError (such as
    BadImage) of the first batch that cannot be made.
    """
    if workers == 0:
        yield from (dataset.completed(dataset[place]) for place in places)
        return
    loader = DataLoader(
        _Guarded(dataset),
        sampler=places,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        multiprocessing_context=start_method,
        generator=torch.Generator(),  # else the global generator is advanced, although no worker draws from what it gives
    )
    at_exit = Finalize(None, _end_workers, exitpriority=0)
    try:
        for found in loader:
            if isinstance(found, UserError):
                raise found
            yield dataset.completed(found)
    finally:
        at_exit.cancel()


class _Guarded(Dataset):
    """Hands the person's mistakes over as values: raised in a worker, they would arrive wrapped in a traceback."""

    def __init__(self, dataset: TrainingDataset | ForeignDataset):
        self._dataset = dataset

    def __getitem__(self, place: BatchPlace) -> Batch | UserError:
        try:
            return self._dataset[place]
        except UserError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(_number: int) -> None:
    """Whoever stops a run signals all of its processes; the main one decides, and workers end with it."""
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)  # the workers are the threads


def _end_workers() -> None:
    """Of a run that crashed, whose traceback holds this iterator: Python would ask them by SIGTERM, and wait for ever."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch raises there when a worker is killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _cpu_threads() -> int:
    """Threads that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
