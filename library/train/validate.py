"""The validation loss: held-out images at fixed timesteps, with the same noise every time, over all processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.optim import Optimizer

from library.methods.base import Method
from library.optim.average import WeightAverage
from library.optim.optimizers import evaluation_weights
from library.seeding import seed_from
from library.train.batch_loss import BatchLoss
from library.train.runtime import Runtime
from library.train.signals import Stopped
from library.train.validation_plan import ValidationPlan
from library.types import Batch


@dataclass(frozen=True)
class Measurement:
    """What held-out images say of the weights as they are."""

    loss: float  # mean over images and timesteps
    by_timestep: dict[str, float]
    images: int
    seconds: float


@dataclass(frozen=True)
class Validator:
    """Callable: measures the held-out images. Every process measures its share of their batches, and all get the same result."""

    batches: Callable[[], Iterator[Batch]]  # this process's
    plan: ValidationPlan
    batch_loss: BatchLoss
    method: Method
    optimizer: Optimizer
    average: WeightAverage | None  # of the weights, where one is saved instead of them
    runtime: Runtime

    def __call__(self) -> Measurement:
        """Raises Stopped, in all processes, if somebody asks to stop meanwhile."""
        started = time.monotonic()
        seed = seed_from("validation", self.plan.seed)
        losses = torch.zeros(len(self.plan.timesteps), self.plan.image_count, dtype=torch.float64)
        self.method.eval()
        try:
            with self.runtime.failing_together(), self._saved_weights(), self.runtime.generators_apart(seed):
                found = list(self._measure_batches(seed))
                for first, values in found:  # only now, so that no batch waits for the device
                    losses[:, first : first + values.shape[1]] = values.cpu().double()
        finally:
            self.method.train()
        # Each loss is a number in one process and 0 in all others, so that the sums are exact, whatever the number of processes.
        losses = self.runtime.sum_everywhere(losses)
        means = [math.fsum(row) / len(row) for row in losses.tolist()]
        by_timestep = {str(timestep): mean for timestep, mean in zip(self.plan.timesteps, means, strict=True)}
        return Measurement(math.fsum(means) / len(means), by_timestep, losses.shape[1], time.monotonic() - started)

    @contextmanager
    def _saved_weights(self) -> Iterator[None]:
        with evaluation_weights(self.optimizer), self.average.in_place() if self.average else nullcontext():
            yield

    def _measure_batches(self, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Of each batch, the number of its first image and the losses [timesteps, images]."""
        for batch in self.batches():
            if self.runtime.stop_wanted():
                raise Stopped
            self.method.before_batch(batch)
            measured = self.batch_loss.at_fixed_timesteps(batch, seed)
            if batch.place.share > 0:  # a filler copy only keeps the processes in step
                yield batch.place.first_position, measured
