"""What follows a step: the tags of TensorBoard, the averages, and in which order saves and samples come when due."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from library.config.options import SamplingOptions
from library.train.loop import StepReport
from library.train.loss_splits import LossSplits
from library.train.reactions import Reactions, samples_due
from library.types import BatchPlace, SampleRef

PLACE = BatchPlace(epoch=1, step=1, micro_step=0, samples=(), first_position=0, ends_step=True, ends_epoch=False, share=1.0)
STEPS_PER_EPOCH = 2


class Recorder:
    """A stand-in for event log, tracker, progress bar, saver and sample drawer."""

    def __init__(self, save_succeeds: bool = True):
        self.events: list[tuple[str, dict]] = []
        self.tracked: list[tuple[dict, int]] = []
        self.shown: list[tuple] = []
        self.calls: list[tuple] = []
        self.save_succeeds = save_succeeds

    def write(self, event: str, **facts) -> None:
        self.events.append((event, facts))

    def log(self, values: dict, step: int) -> None:
        self.tracked.append((values, step))

    def update(self, *facts) -> None:
        self.shown.append(facts)

    def due(self, step: int) -> bool:
        return step % 2 == 0

    def save_step(self, step: int) -> bool:
        self.calls.append(("save", step))
        return self.save_succeeds

    def draw(self, step: int, epoch: int | None) -> None:
        self.calls.append(("draw", step, epoch))


def reactions(recorder: Recorder, optimizer=None, **sampling) -> Reactions:
    return Reactions(
        events=recorder,
        trackers=[recorder],
        progress=recorder,
        optimizer=optimizer or SimpleNamespace(param_groups=[{"name": "unet", "lr": 1e-3}]),
        saver=recorder,
        sampling=SamplingOptions(**sampling),
        average=None,
        draw_samples=recorder.draw,
        splits=LossSplits([], lambda sums: sums),
        steps_per_epoch=STEPS_PER_EPOCH,
        last_step=0,
    )


def report(
    step: int, loss: float = 1.0, rates: dict[str, float] | None = None, extras: dict[str, float] | None = None
) -> StepReport:
    epoch, ends = -(-step // STEPS_PER_EPOCH), step % STEPS_PER_EPOCH == 0
    rates = rates or {"textencoder": 5e-5, "unet": 1e-4}
    return StepReport(replace(PLACE, step=step, epoch=epoch, ends_epoch=ends), loss, rates, 0.5, extras or {})


def test_tags_of_a_step():
    recorder = Recorder()
    reactions(recorder)(report(1, loss=0.25, extras={"max_norm/keys_scaled": 3.0}))
    assert recorder.tracked == [
        (
            {
                "loss/current": 0.25,
                "loss/average": 0.25,
                "norm/grad_norm": 0.5,
                "lr/textencoder": 5e-5,
                "lr/unet": 1e-4,
                "max_norm/keys_scaled": 3.0,
            },
            1,
        )
    ]


def test_optimizers_that_find_their_rate_show_it():
    recorder = Recorder()
    optimizer = SimpleNamespace(param_groups=[{"name": "unet", "lr": 0.5, "d": torch.tensor(0.25)}])
    reactions(recorder, optimizer)(report(1, rates={"unet": 0.5}))
    assert recorder.tracked[0][0]["lr/d*lr/unet"] == 0.125


def test_averages_of_the_last_epochs_length_and_of_each_epoch():
    recorder = Recorder()
    react = reactions(recorder)
    for step, loss in enumerate((1.0, 3.0, 5.0, 9.0), start=1):
        react(report(step, loss))
    assert [facts["average_loss"] for event, facts in recorder.events if event == "step"] == [1.0, 2.0, 4.0, 7.0]
    assert [(values, step) for values, step in recorder.tracked if "loss/epoch_average" in values] == [
        ({"loss/epoch_average": 2.0}, 1),
        ({"loss/epoch_average": 7.0}, 2),
    ]
    assert [facts for event, facts in recorder.events if event == "epoch"] == [
        {"epoch": 1, "step": 2, "average_loss": 2.0},
        {"epoch": 2, "step": 4, "average_loss": 7.0},
    ]


def test_the_event_of_a_step_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * 2**29)
    recorder = Recorder()
    reactions(recorder)(report(1))
    assert recorder.events[0][1]["gpu_memory_gib"] == 1.5


def test_the_event_of_a_step():
    recorder = Recorder()
    reactions(recorder)(report(1, extras={"norm/x": 1.0}))
    ((event, facts),) = recorder.events
    assert event == "step"
    assert facts == {
        "step": 1,
        "epoch": 1,
        "loss": 1.0,
        "average_loss": 1.0,
        "lr": {"textencoder": 5e-5, "unet": 1e-4},
        "grad_norm": 0.5,
        "extras": {"norm/x": 1.0},
    }


def test_losses_by_band_of_timesteps():
    recorder = Recorder()
    react = reactions(recorder)
    place = replace(PLACE, samples=(SampleRef(0, 0), SampleRef(0, 1)))
    for step, timesteps, losses in ((1, (10, 999), (1.0, 4.0)), (2, (249, 250), (2.0, 8.0))):
        react.splits.observe(SimpleNamespace(place=place), torch.tensor(timesteps), torch.tensor(losses))
        react(report(step))
    assert [facts["losses"] for _, facts in recorder.events] == [
        {"timesteps/0-249": 1.0, "timesteps/750-999": 4.0},
        {"timesteps/0-249": 2.0, "timesteps/250-499": 8.0},
        {"timesteps/0-249": 1.5, "timesteps/250-499": 8.0, "timesteps/750-999": 4.0},
    ]
    first, second, epoch = (values for values, _ in recorder.tracked)
    assert (first["loss/timesteps/0-249"], second["loss/timesteps/0-249"]) == (1.0, 2.0)
    assert "loss/timesteps/250-499" not in first
    assert epoch["loss/epoch_average/timesteps/0-249"] == 1.5


def test_saves_come_before_samples():
    recorder = Recorder()
    react = reactions(recorder, sample_every_n_steps=2)
    for step in (1, 2, 3, 4):
        react(report(step))
    assert recorder.calls == [("save", 2), ("draw", 2, 1), ("save", 4), ("draw", 4, 2)]
    assert react.last_step == 4


def test_whether_the_last_save_succeeded_is_remembered():
    recorder = Recorder(save_succeeds=False)
    react = reactions(recorder)
    for step, succeeds, remembered in ((1, False, True), (2, False, False), (3, True, False), (4, True, True)):
        recorder.save_succeeds = succeeds
        react(report(step))
        assert react.last_save_succeeded is remembered


@pytest.mark.parametrize(
    "options, step, ended_epoch, due",
    [
        ({}, 10, 1, False),
        ({"sample_every_n_steps": 5}, 10, None, True),
        ({"sample_every_n_steps": 5}, 11, None, False),
        ({"sample_every_n_epochs": 2}, 10, 2, True),
        ({"sample_every_n_epochs": 2}, 10, 3, False),
        ({"sample_every_n_epochs": 2}, 10, None, False),
        ({"sample_every_n_epochs": 2, "sample_every_n_steps": 5}, 10, None, False),  # epochs win
        ({"sample_every_n_epochs": 2, "sample_every_n_steps": 5}, 11, 2, True),
    ],
)
def test_when_samples_are_due(options, step, ended_epoch, due):
    assert samples_due(SamplingOptions(**options), step, ended_epoch) is due
