"""Two processes share the data of each epoch, keep the same weights to the bit, and follow the schedule of one."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.train.launches import TWO_PROCESSES, launch
from tests.train.recorded_run import record_to
from tests.train.runs import IMAGES, Workshop, make_workshop, tensors_hash

STEPS = 6  # two epochs: 5 pictures are 3 batches for each process, one of them a copy that does not count

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not built for Windows")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    options = {
        "max_train_steps": STEPS,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "save_state": True,
        "network_dropout": 0.1,
    }
    return make_workshop(tmp_path_factory.mktemp("two"), **options)


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    run(workshop, "unbroken")
    return "unbroken"


def record(workshop: Workshop, name: str) -> Path:
    return workshop.folder / f"{name}-record"


def run(workshop: Workshop, name: str, *flags: str) -> None:
    """To its end; both processes record what they do."""
    outcomes = workshop.train_in_two(name, *flags, prepare=functools.partial(record_to, record(workshop, name), None))
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes


def seen(workshop: Workshop, name: str, rank: int) -> list[dict]:
    return json.loads((record(workshop, name) / f"rank{rank}.json").read_text(encoding="utf-8"))


def weights(workshop: Workshop, name: str, rank: int) -> str:
    return tensors_hash(record(workshop, name) / f"rank{rank}.safetensors")


def rates(workshop: Workshop, name: str, rank: int = 0) -> list[dict[str, float]]:
    return [event["lr"] for event in workshop.events(name, rank) if event["event"] == "step"]


def test_each_process_knows_of_both(workshop, unbroken):
    assert [workshop.events(unbroken, rank)[0]["processes"] for rank in (0, 1)] == [2, 2]


def test_the_processes_agree_on_losses(workshop, unbroken):
    """The copy that one of them has in the last step of an epoch is not among them."""
    one, other = ([event for event in workshop.events(unbroken, rank) if event["event"] == "step"] for rank in (0, 1))
    assert [(event["loss"], event["losses"]) for event in one] == [(event["loss"], event["losses"]) for event in other]
    for event in one:
        samples = 2 if event["step"] % 3 else 1
        assert min(event["losses"].values()) <= event["loss"] + 1e-6
        assert max(event["losses"].values()) >= event["loss"] - 1e-6
        assert len(event["losses"]) <= samples


def test_an_epoch_shows_each_picture_once(workshop, unbroken):
    batches = seen(workshop, unbroken, 0) + seen(workshop, unbroken, 1)
    for epoch in (1, 2):
        counted = Counter(name for batch in batches if batch["epoch"] == epoch and batch["share"] for name in batch["pictures"])
        assert counted == {f"{number}.png": 1 for number in range(IMAGES)}
    assert [batch["step"] for batch in batches if not batch["share"]] == [3, 6]


def test_the_processes_draw_their_own_noise(workshop, unbroken):
    positions = [{batch["first_position"] for batch in seen(workshop, unbroken, rank)} for rank in (0, 1)]
    assert positions == [{0}, {1}]


def test_both_hold_the_same_weights(workshop, unbroken):
    assert weights(workshop, unbroken, 0) == weights(workshop, unbroken, 1)


def test_the_schedule_is_that_of_one_process(workshop, unbroken):
    assert workshop.train("alone").code == 0
    assert len({rate["unet"] for rate in rates(workshop, "alone")}) > 3
    assert rates(workshop, unbroken) == rates(workshop, unbroken, rank=1) == rates(workshop, "alone")


def test_a_signal_to_one_process_stops_both_and_the_run_resumes(workshop, unbroken):
    """Stopped under accelerate's launcher, which so proves to start what the other tests start themselves."""
    script = ["-m", "tests.train.recorded_run", "--record", str(record(workshop, "stopped")), "--terminate_at", "4"]
    training = launch(workshop, "stopped", TWO_PROCESSES, script, workshop.config("stopped"))
    try:
        assert training.exit_codes(2) == [143, 143], training.output()
    finally:
        training.end()
    assert [workshop.events("stopped", rank)[-1]["step"] for rank in (0, 1)] == [4, 4]
    assert weights(workshop, "stopped", 0) != weights(workshop, unbroken, 0)
    run(workshop, "stopped", "--resume", "latest")
    print(f"unbroken {weights(workshop, unbroken, 0)}\nresumed  {weights(workshop, 'stopped', 0)}")
    assert weights(workshop, "stopped", 0) == weights(workshop, "stopped", 1) == weights(workshop, unbroken, 0)
