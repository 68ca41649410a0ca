"""What follows from a validation loss: events, tags, the best weights, and an early end."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from library.checkpoint.best import Best
from library.checkpoint.naming import RunLength
from library.config.options import ValidationOptions
from library.train.signals import Stopped
from library.train.validate import Measurement
from library.train.validation_plan import ValidationPlan
from library.train.watch import ValidationWatch

LENGTH = RunLength(first_step=1, last_step=10, steps_per_epoch=3)


class Scene:
    """A watch whose measurements are given, and stand-ins for all that it tells."""

    def __init__(self, losses, best: Best | None = None, **options):
        self.losses = iter(losses)
        self.events: list[tuple[str, dict]] = []
        self.tracked: list[tuple[dict, int]] = []
        self.saved: list[int] = []
        self.shown: list[float] = []
        self.best = best or Best("these")
        self.saver = SimpleNamespace(length=LENGTH, save_best=self.saved.append, end_at=self.end_at)
        self.ended_at: int | None = None
        plan = ValidationPlan(ValidationOptions(**options), 1, 2, [], [200, 800], self.best)
        self.watch = ValidationWatch(
            plan, self.measure, self.best, self.saver, lambda event, **facts: self.events.append((event, facts)), [self],
            SimpleNamespace(show_validation=self.shown.append),
        )  # fmt: skip

    def measure(self) -> Measurement:
        loss = next(self.losses)
        if loss is None:
            raise Stopped
        return Measurement(loss, {"200": loss, "800": loss}, 2, 1.0)

    def end_at(self, step: int) -> None:
        self.ended_at = step

    def log(self, values: dict, step: int) -> None:
        self.tracked.append((values, step))

    def run(self, first: int = 1, last: int = 10) -> int | None:
        """The step after which the run ends early."""
        return next((step for step in range(first, last + 1) if self.watch.after_step(step, 1.0)), None)

    def measured_after(self) -> list[int]:
        return [facts["step"] for event, facts in self.events if event == "validation"]


@pytest.mark.parametrize(
    "options, steps",
    [
        ({}, [3, 6, 9, 10]),  # each epoch, and the end
        ({"validate_every_n_epochs": 2}, [6, 10]),
        ({"validate_every_n_steps": 4}, [3, 4, 6, 8, 9, 10]),
        ({"validate_every_n_epochs": 3, "validate_every_n_steps": 5}, [5, 9, 10]),
    ],
)
def test_when_it_measures(options, steps):
    scene = Scene([1.0] * 10, **options)
    scene.run()
    assert scene.measured_after() == steps


def test_events_and_tags():
    scene = Scene([0.5, 0.75], validate_every_n_steps=2)
    scene.watch.after_step(2, 0.25)
    scene.watch.after_step(6, 0.5)  # an epoch ends, too
    (first, facts), (_, second) = scene.events
    assert first == "validation"
    assert facts == {
        "step": 2, "epoch": 1, "loss": 0.5, "training_loss": 0.25, "divergence": 0.25, "best": True,
        "by_timestep": {"200": 0.5, "800": 0.5}, "images": 2, "seconds": 1.0,
    }  # fmt: skip
    assert (second["epoch"], second["divergence"], second["best"]) == (2, 0.25, False)
    assert scene.tracked == [
        ({"loss/validation/step_average": 0.5, "loss/validation/step_divergence": 0.25}, 2),
        ({"loss/validation/step_average": 0.75, "loss/validation/step_divergence": 0.25}, 6),
        ({"loss/validation/epoch_average": 0.75, "loss/validation/epoch_divergence": 0.25}, 2),
    ]
    assert scene.shown == [0.5, 0.75]


def test_the_best_weights_are_saved_and_nothing_else():
    losses = [3.0, 2.0, 2.0, math.nan, math.inf, 1.0, 4.0]
    scene = Scene(losses, save_best=True, validate_every_n_steps=1)
    scene.run(last=7)
    assert scene.saved == [1, 2, 6]
    assert scene.best == Best("these", 1.0, 6, 1, 7)
    assert Scene(losses, validate_every_n_steps=1).run(last=7) is None


def test_without_save_best_nothing_is_saved():
    scene = Scene([2.0, 1.0])
    scene.run(last=6)
    assert scene.saved == []


@pytest.mark.parametrize(
    "losses, ends",
    [
        ([5.0, 4.0, 4.5, 4.0, 1.0], 4),  # no better is as bad as worse
        ([5.0, 4.0, 4.5, 3.0, 3.5, 2.0, 3.0, 3.0], 8),
        ([math.nan, math.nan], 2),
        ([5.0, 4.0, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.9, 0.9], None),  # the last step is no early end
    ],
)
def test_out_of_patience(losses, ends):
    scene = Scene(losses, validate_every_n_steps=1, early_stopping_patience=2)
    assert scene.run(last=len(losses)) == ends
    assert scene.ended_at == ends
    stopped = [facts for event, facts in scene.events if event == "early_stopped"]
    expected = {"step": ends, "patience": 2, "best_step": scene.best.step, "best_loss": scene.best.loss}
    assert stopped == ([] if ends is None else [expected])


def test_a_measurement_that_is_cut_short_ends_the_run_and_is_made_up_for():
    scene = Scene([5.0, None], validate_every_n_steps=1, early_stopping_patience=1)
    assert scene.run() == 2
    assert scene.ended_at is None  # it was stopped; it has not come to its end
    resumed = Scene([6.0], best=scene.best, validate_every_n_steps=1, early_stopping_patience=1)
    assert resumed.watch.make_up(2) is True
    assert resumed.ended_at == 2
    assert resumed.events[0][1]["divergence"] is None
    assert resumed.tracked == [({"loss/validation/step_average": 6.0}, 2)]


def test_what_was_measured_is_not_measured_again():
    scene = Scene([], best=Best("these", 1.0, 3, 0, 3))
    assert scene.watch.make_up(3) is False
    assert scene.watch.make_up(4) is False  # nothing was due
    assert scene.events == []


def test_a_run_that_ended_early_ends_again_at_once():
    scene = Scene([], best=Best("these", 1.0, 3, 2, 9), early_stopping_patience=2)
    assert scene.watch.make_up(9) is True
    assert scene.ended_at == 9
    patient = Scene([], best=Best("these", 1.0, 3, 2, 9), early_stopping_patience=3)
    assert patient.watch.make_up(9) is False
