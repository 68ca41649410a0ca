"""Watches the validation loss: measures it when due, keeps the best weights, and ends a run that no longer gets better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from library.checkpoint.best import Best
from library.checkpoint.saver import Report, Saver
from library.train.console import ProgressBar
from library.train.signals import Stopped
from library.train.trackers import Tracker
from library.train.validate import Measurement
from library.train.validation_plan import ValidationPlan


@dataclass
class ValidationWatch:
    """Called after each optimizer step. Every process comes to the same decisions, for all measure the same."""

    plan: ValidationPlan
    measure: Callable[[], Measurement]
    best: Best
    saver: Saver
    report: Report
    trackers: list[Tracker]
    progress: ProgressBar

    def after_step(self, step: int, training_loss: float | None) -> bool:
        """Whether the run is to end with this step. `training_loss`: the mean of the last steps, if there were any."""
        if any(self.plan.due(self.saver.length, step)):
            try:
                measurement = self.measure()
            except Stopped:  # a resumed run makes up for it
                return True
            self._take(step, measurement, training_loss)
        return self._is_out_of_patience(step)

    def make_up(self, step: int) -> bool:
        """Before the first step of a resumed run: measure what the stop left out. Whether the run had ended by itself."""
        return self._is_out_of_patience(step) if self.best.last_step == step else self.after_step(step, None)

    def _take(self, step: int, measurement: Measurement, training_loss: float | None) -> None:
        loss = measurement.loss
        is_best = self.best.note(step, loss)
        divergence = None if training_loss is None else loss - training_loss
        epoch = self.saver.length.epoch_of(step)
        self.report(
            "validation", step=step, epoch=epoch, loss=loss, training_loss=training_loss, divergence=divergence, best=is_best,
            by_timestep=measurement.by_timestep, images=measurement.images, seconds=round(measurement.seconds, 1),
        )  # fmt: skip
        for is_due, unit, number in zip(self.plan.due(self.saver.length, step), ("step", "epoch"), (step, epoch), strict=True):
            values = {f"loss/validation/{unit}_average": loss}
            values |= {} if divergence is None else {f"loss/validation/{unit}_divergence": divergence}
            for tracker in self.trackers if is_due else ():
                tracker.log(values, step=number)
        self.progress.show_validation(loss)
        if is_best and self.plan.options.save_best:
            self.saver.save_best(step)

    def _is_out_of_patience(self, step: int) -> bool:
        patience = self.plan.options.early_stopping_patience
        if patience is None or self.best.rounds_since < patience or step >= self.saver.length.last_step:
            return False
        self.report("early_stopped", step=step, patience=patience, best_step=self.best.step, best_loss=self.best.loss)
        self.saver.end_at(step)
        return True
