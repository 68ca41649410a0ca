"""The loop with stand-ins for all that it calls: the order of events, the share of each batch, and when it gives up."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from library.train.loop import NotFinite, StepReport, train
from library.types import BatchPlace, SampleRef

PLACE = BatchPlace(
    epoch=1, step=1, micro_step=0, samples=(SampleRef(0, 0),), first_position=0, ends_step=True, ends_epoch=False, share=1.0
)


def place(step: int, micro_step: int = 0, of: int = 1, share: float | None = None) -> BatchPlace:
    share = 1 / of if share is None else share
    return replace(PLACE, step=step, micro_step=micro_step, ends_step=micro_step == of - 1, share=share)


class Trace(list):
    """What was called, in order."""

    def noting(self, name: str, result=None):
        def call(*arguments, **_keywords):
            self.append(name)
            return result(*arguments) if callable(result) else result

        return call


class Scene:
    """One weight, a batch loss that is `weight x value of the batch`, and a runtime of one process."""

    def __init__(self, scales_gradients: bool = False, stop_after: int | None = None, over_after: int | None = None):
        self.trace = Trace()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.optimizer = torch.optim.SGD([{"params": [self.weight], "lr": 0.5, "name": "unet"}])
        self.optimizer.register_step_pre_hook(self.trace.noting("step"))
        self.reports: list[StepReport] = []
        self.gradients: list[float] = []
        self.max_norms: list[float] = []
        self.stop_after = stop_after
        self.over_after = over_after
        self.runtime = SimpleNamespace(
            scales_gradients=scales_gradients,
            seed_global_generators=self.trace.noting("seed"),
            backward=self.trace.noting("backward", lambda loss, place: (loss * place.share).backward()),
            agree=self.trace.noting("agree", self.agree),
            average_gradients=self.trace.noting("average"),
            clip_gradients=self.trace.noting("clip", self.clip),
        )
        self.method = SimpleNamespace(
            before_batch=self.trace.noting("before_batch"), after_step=self.trace.noting("after_step", {"norm/x": 2.0})
        )
        self.scheduler = SimpleNamespace(step=self.trace.noting("schedule"))

    def agree(self, losses: list[torch.Tensor]) -> tuple[float, bool]:
        return float(torch.cat(losses).mean()), len(self.reports) + 1 == self.stop_after

    def report(self, report: StepReport) -> bool:
        self.reports.append(report)
        return len(self.reports) == self.over_after

    def clip(self, parameters: list[torch.nn.Parameter], max_norm: float) -> float:
        self.gradients.append(float(self.weight.grad))
        self.max_norms.append(max_norm)
        return abs(self.gradients[-1])

    def train(self, *batches: tuple[BatchPlace, list[float]], max_grad_norm: float = 1.0) -> None:
        """Batches of (place, the values of its samples)."""
        paths = [[f"{values}.png"] for _, values in batches]
        train(
            [SimpleNamespace(place=p, values=v, image_paths=path) for (p, v), path in zip(batches, paths, strict=True)],
            self.trace.noting("loss", lambda batch: self.weight * torch.tensor(batch.values)),
            self.method,
            self.optimizer,
            self.scheduler,
            self.runtime,
            max_grad_norm,
            self.trace.noting("report", self.report),
        )


MICRO_STEP = ["seed", "before_batch", "loss", "backward"]
STEP_END = ["agree", "average", "clip", "step", "schedule", "after_step", "report"]


def test_the_order_of_a_step():
    scene = Scene()
    scene.train((place(1, 0, of=2), [1.0]), (place(1, 1, of=2), [1.0]), (place(2), [1.0]))
    assert scene.trace == [*MICRO_STEP, *MICRO_STEP, *STEP_END, *MICRO_STEP, *STEP_END]


def test_a_step_of_several_batches_is_their_mean():
    scene = Scene()
    scene.train((place(1, 0, of=2), [1.0, 3.0]), (place(1, 1, of=2), [6.0]))
    assert scene.gradients == [pytest.approx((2.0 + 6.0) / 2)]
    assert scene.weight.item() == pytest.approx(1 - 0.5 * 4)
    assert scene.reports[0].loss == pytest.approx((1 + 3 + 6) / 3)  # over the samples


def test_a_filler_copy_counts_nowhere():
    scene = Scene()
    scene.train((place(1, 0, of=2, share=1.0), [2.0]), (place(1, 1, of=2, share=0.0), [100.0]))
    assert scene.gradients == [2.0]
    assert scene.reports[0].loss == 2.0


def test_gradients_do_not_leak_into_the_next_step():
    scene = Scene()
    scene.train((place(1), [1.0]), (place(2), [3.0]))
    assert scene.gradients == [1.0, 3.0]
    assert scene.weight.grad is None


def test_what_a_report_says():
    scene = Scene()
    scene.train((place(1), [2.0]), max_grad_norm=0.25)
    (report,) = scene.reports
    assert (report.place, report.loss, report.grad_norm) == (place(1), 2.0, 2.0)
    assert (report.learning_rates, report.extras) == ({"unet": 0.5}, {"norm/x": 2.0})
    assert scene.max_norms == [0.25]


def test_it_stops_after_the_step_in_which_it_is_asked():
    scene = Scene(stop_after=2)
    scene.train(*((place(step), [1.0]) for step in range(1, 6)))
    assert [report.place.step for report in scene.reports] == [1, 2]
    assert scene.trace[-1] == "report"


def test_it_ends_where_what_follows_a_step_says_so():
    scene = Scene(over_after=2)
    scene.train(*((place(step), [1.0]) for step in range(1, 6)))
    assert [report.place.step for report in scene.reports] == [1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_spoils_no_weight(value):
    scene = Scene()
    with pytest.raises(NotFinite, match="the loss is not a finite number at step 2") as raised:
        scene.train((place(1), [1.0]), (place(2, 0, of=2), [1.0]), (place(2, 1, of=2), [value]))
    assert scene.weight.item() == 0.5
    assert raised.value.last_finite_step == 1
    assert raised.value.image_paths == ["[1.0].png", f"[{value}].png"]


def test_a_gradient_that_is_no_number_spoils_no_weight():
    scene = Scene()
    scene.runtime.clip_gradients = lambda parameters, max_norm: math.nan
    with pytest.raises(NotFinite, match="the gradient is not a finite number at step 1"):
        scene.train((place(1), [1.0]))
    assert scene.weight.item() == 1.0


def test_with_a_loss_scaler_infinite_gradients_are_its_business():
    scene = Scene(scales_gradients=True)
    scene.runtime.clip_gradients = lambda parameters, max_norm: math.inf
    scene.train((place(1), [1.0]))
    assert len(scene.reports) == 1
