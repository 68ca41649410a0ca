"""What follows an optimizer step: events, TensorBoard, the progress bar, saves and samples, each if due."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.optim import Optimizer

from library.checkpoint.saver import Saver
from library.config.options import SamplingOptions
from library.optim.average import WeightAverage
from library.optim.optimizers import adapted_learning_rates, evaluation_weights
from library.train.console import ProgressBar
from library.train.events import EventLog
from library.train.loop import StepReport
from library.train.loss_splits import LossSplits
from library.train.trackers import Tracker
from library.train.watch import ValidationWatch


@dataclass
class Reactions:
    """Called after each optimizer step by the loop."""

    events: EventLog
    trackers: list[Tracker]
    progress: ProgressBar
    optimizer: Optimizer
    saver: Saver
    sampling: SamplingOptions
    average: WeightAverage | None  # of the weights, where one is asked for
    draw_samples: Callable[[int, int | None], None]  # (step, epoch where it is an epoch's end)
    splits: LossSplits
    steps_per_epoch: int
    last_step: int  # the last one that is done
    watch: ValidationWatch | None = None  # where images are held out
    last_save_succeeded: bool = True
    _recent: deque[float] = field(init=False)
    _epoch_losses: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._recent = deque(maxlen=self.steps_per_epoch)

    def __call__(self, report: StepReport) -> bool:
        """Whether the training is to end before its last step."""
        place = report.place
        self.last_step = place.step
        if self.average is not None:
            self.average.update()
        self._recent.append(report.loss)
        self._epoch_losses.append(report.loss)
        average = math.fsum(self._recent) / len(self._recent)
        self._log(report, average)
        if place.ends_epoch:
            self._end_epoch(place.epoch, place.step)
        is_over = self.watch is not None and self.watch.after_step(place.step, average)  # before saves: a state holds what it finds
        self._save(place.step)
        if samples_due(self.sampling, place.step, place.epoch if place.ends_epoch else None):
            with evaluation_weights(self.optimizer):
                self.draw_samples(place.step, place.epoch if place.ends_epoch else None)
        return is_over

    def make_up(self) -> bool:
        """Before the first step of a resumed run: do what it was stopped before. Whether that was all there was left to do."""
        is_over = self.watch is not None and self.watch.make_up(self.last_step)
        if is_over:
            self._save(self.last_step)
        return is_over

    def _save(self, step: int) -> None:
        if self.saver.due(step):
            self.last_save_succeeded = self.saver.save_step(step)

    def _log(self, report: StepReport, average: float) -> None:
        place, rates, splits = report.place, report.learning_rates, self.splits.end_step()
        self.events.write(
            "step", step=place.step, epoch=place.epoch, loss=report.loss, average_loss=average, lr=rates,
            grad_norm=report.grad_norm, **_where_any(extras=report.extras, losses=splits, gpu_memory_gib=_gpu_memory_gib()),
        )  # fmt: skip
        values = {"loss/current": report.loss, "loss/average": average, "norm/grad_norm": report.grad_norm, **report.extras}
        values |= {f"loss/{name}": loss for name, loss in splits.items()}
        values |= {f"lr/{name}": rate for name, rate in rates.items()}
        values |= {f"lr/d*lr/{name}": rate for name, rate in adapted_learning_rates(self.optimizer).items()}
        for tracker in self.trackers:
            tracker.log(values, step=place.step)
        self.progress.update(place.step, average, next(iter(rates.values())))

    def _end_epoch(self, epoch: int, step: int) -> None:
        average = math.fsum(self._epoch_losses) / len(self._epoch_losses)
        self._epoch_losses.clear()
        splits = self.splits.end_epoch()
        self.events.write("epoch", epoch=epoch, step=step, average_loss=average, **_where_any(losses=splits))
        values = {"loss/epoch_average": average} | {f"loss/epoch_average/{name}": loss for name, loss in splits.items()}
        for tracker in self.trackers:
            tracker.log(values, step=epoch)


def _where_any(**facts: dict[str, float] | float) -> dict[str, dict[str, float] | float]:
    return {name: values for name, values in facts.items() if values}


def _gpu_memory_gib() -> float:
    """The most that this process has taken of its GPU so far; 0 where it uses none."""
    return round(torch.cuda.max_memory_reserved() / 2**30, 2) if torch.cuda.is_initialized() else 0.0


def samples_due(options: SamplingOptions, step: int, ended_epoch: int | None) -> bool:
    """Whether samples are drawn after this step; the cadence in epochs decides over that in steps."""
    if options.sample_every_n_epochs:
        return ended_epoch is not None and ended_epoch % options.sample_every_n_epochs == 0
    return options.sample_every_n_steps is not None and step % options.sample_every_n_steps == 0
