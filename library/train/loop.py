"""THE training loop. Every method on every model family runs through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from library.methods.base import Method
from library.optim.schedulers import Scheduler
from library.train.runtime import Runtime
from library.train.sharing import SteppedOptimizer
from library.types import Batch, BatchPlace


@dataclass
class StepReport:
    """What one optimizer step did; handed to everything that logs, saves, validates or draws."""

    place: BatchPlace  # of the last batch of the step
    loss: float  # mean over the samples of the step, all processes
    learning_rates: dict[str, float]  # as used in this step, by name of the parameter group
    grad_norm: float  # of all trained parameters together, before clipping
    extras: dict[str, float] = field(default_factory=dict)  # what the method measures, by TensorBoard tag


class NotFinite(Exception):
    """The loss or the gradient is no longer a number; the weights are still those of the step before."""

    def __init__(self, what: str, place: BatchPlace, image_paths: list[str]):
        super().__init__(f"{what} is not a finite number at step {place.step} (epoch {place.epoch})")
        self.last_finite_step = place.step - 1
        self.image_paths = image_paths


def train(
    batches: Iterable[Batch],
    batch_loss: Callable[[Batch], Tensor],
    method: Method,
    optimizer: SteppedOptimizer,
    scheduler: Scheduler,
    runtime: Runtime,
    max_grad_norm: float,
    after_step: Callable[[StepReport], bool],
) -> None:
    """Train until the batches end or somebody asks to stop.

    batch_loss: the per-sample losses [B] of a batch, weights applied. after_step: events, validation, saves, samples, each if due;
    true if the training is to end here.
    Raises NotFinite before a step that would spoil the weights.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses, image_paths = [], []
    for batch in batches:
        place = batch.place
        runtime.seed_global_generators(place)
        method.before_batch(batch)

        sample_losses = batch_loss(batch)
        runtime.backward(sample_losses.mean(), place)
        if place.share > 0:  # a filler copy, which only keeps the processes in step, is counted nowhere
            losses.append(sample_losses.detach())
            image_paths += batch.image_paths
        if not place.ends_step:
            continue

        loss, stop_requested = runtime.agree(losses)
        if not math.isfinite(loss):
            raise NotFinite("the loss", place, image_paths)
        runtime.average_gradients(parameters)
        grad_norm = runtime.clip_gradients(parameters, max_grad_norm)
        if not math.isfinite(grad_norm) and not runtime.scales_gradients:
            raise NotFinite("the gradient", place, image_paths)

        learning_rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step(loss)
        extras = method.after_step()

        is_over = after_step(StepReport(place, loss, learning_rates, grad_norm, extras))
        losses, image_paths = [], []
        if stop_requested or is_over:
            return
