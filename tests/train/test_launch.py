"""Signals and codes of real commands under accelerate's launcher, which passes neither on; of plain ones: test_resume."""

from __future__ import annotations

import os
import signal

import pytest

from tests.train.launches import ACCELERATE, launch
from tests.train.runs import Workshop, make_workshop, tensors_hash

SCRIPT = ["train_network.py"]
ENDLESS = 2000  # steps: minutes, and not for ever should the tests themselves be killed

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no signals that can be caught; the console's Ctrl-C is the same"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    folder = tmp_path_factory.mktemp("launch")
    return make_workshop(folder, gradient_accumulation_steps=2, lr_scheduler="constant_with_warmup", lr_warmup_steps=3)


def steps_done(workshop: Workshop, name: str) -> list[int]:
    return [event["step"] for event in workshop.events(name) if event["event"] == "step"]


def started(workshop: Workshop, name: str):
    """An endless training, at work."""
    training = launch(workshop, name, ACCELERATE, SCRIPT, workshop.config(name, max_train_steps=ENDLESS))
    training.wait_until(lambda: training.process.poll() is not None or steps_done(workshop, name))
    return training


def stopped_at(workshop: Workshop, name: str) -> int:
    """The step after which a run stopped; its weights and state are there."""
    end = workshop.events(name)[-1]
    assert end["event"] == "end"
    assert not end["finished"]
    assert (workshop.output(name) / f"toad-step{end['step']:08d}.safetensors").is_file()
    assert (workshop.output(name) / f"toad-step{end['step']:08d}-state" / "train_state.json").is_file()
    return end["step"]


def test_a_terminated_launcher_and_the_run_resumed(workshop):
    """SIGTERM ends accelerate's launcher alone; that it may be killed as well is tested with less (tests/launcher)."""
    training = started(workshop, "terminated")
    try:
        training.process.terminate()
        assert training.exit_codes() == [143], training.output()
    finally:
        training.end()
    assert "the launcher has ended" in training.output()
    steps = stopped_at(workshop, "terminated") + 2
    assert workshop.train("terminated", "--resume", "latest", max_train_steps=steps).code == 0
    assert workshop.train("unbroken", max_train_steps=steps).code == 0
    resumed, unbroken = (tensors_hash(workshop.output(name) / "toad.safetensors") for name in ("terminated", "unbroken"))
    print(f"unbroken {unbroken}\nresumed  {resumed}")
    assert resumed == unbroken


def test_control_c_reaches_launcher_and_training(workshop):
    training = started(workshop, "control-c")
    try:
        os.killpg(training.process.pid, signal.SIGINT)
        assert training.exit_codes() == [130], training.output()
        stopped_at(workshop, "control-c")
    finally:
        training.end()
