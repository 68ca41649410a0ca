"""Whole runs that keep their best weights and end early; a run that is killed or stopped on the way comes to the same end."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from safetensors import safe_open

from tests.train.runs import KILL, Strike, Workshop, make_workshop, tensors_hash

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor a SIGTERM that can be caught")

OPTIONS = {
    "learning_rate": 0.5,  # so that the loss soon rises
    "validation_split": 0.4,
    "validate_every_n_steps": 1,
    "save_best": True,
    "early_stopping_patience": 2,
    "max_train_steps": 30,
    "save_every_n_steps": 1,
    "save_state": True,
    "network_dropout": 0.1,
    "max_data_loader_n_workers": 0,
}
MEASURE = "library.train.validate.Validator.__call__"
BATCH = "library.train.batch_loss.BatchLoss.at_fixed_timesteps"
WRITE = "library.methods.adapter.AdapterMethod.write"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("early"), **OPTIONS)


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    outcome = workshop.train("unbroken")
    assert outcome.code == 0, outcome.output
    return "unbroken"


def losses(workshop: Workshop, name: str) -> dict[int, float]:
    """By step; of a run in several parts those of the last part that measured it."""
    return {event["step"]: event["loss"] for event in workshop.events(name) if event["event"] == "validation"}


def files(workshop: Workshop, name: str, *stems: str) -> list[str]:
    return [tensors_hash(workshop.output(name) / f"{stem}.safetensors") for stem in stems or ("toad", "toad-best")]


def test_it_ends_after_two_measurements_that_are_no_better(workshop, unbroken):
    found = losses(workshop, unbroken)
    best = min(found, key=found.get)
    assert list(found) == list(range(1, best + 3))
    assert best + 2 < 30
    events = workshop.events(unbroken)
    (stopped,) = (event for event in events if event["event"] == "early_stopped")
    assert (stopped["step"], stopped["best_step"], stopped["best_loss"]) == (best + 2, best, found[best])
    end = events[-1]
    assert (end["event"], end["step"], end["finished"], end["saved"]) == ("end", best + 2, True, True)


def test_the_files_are_those_of_the_best_and_of_the_last_step(workshop, unbroken):
    found, folder = losses(workshop, unbroken), workshop.output(unbroken)
    best = min(found, key=found.get)
    final, kept = files(workshop, unbroken)
    assert kept == tensors_hash(folder / f"toad-step{best:08d}.safetensors") != final
    assert final == tensors_hash(folder / f"toad-step{best + 2:08d}.safetensors")
    with safe_open(folder / "toad-best.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_steps"], metadata["ss_validation_loss"]) == (str(best), str(found[best]))
    assert metadata["ss_num_validation_images"] == "2"
    assert [path.name for path in folder.glob("toad-best*")] == ["toad-best.safetensors"]


@pytest.mark.parametrize(
    "strike, code",
    [
        (Strike(MEASURE, 2, "after"), -KILL),
        (Strike(WRITE, 3, "half-way"), -KILL),
        (Strike(BATCH, 3, "before", signal.SIGTERM), 143),  # while held-out pictures are measured the second time
    ],
    ids=["killed after measuring", "killed while saving", "stopped while measuring"],
)
def test_killed_or_stopped_and_resumed(workshop, unbroken, strike, code):
    name = f"{strike.function} {strike.when}"
    assert workshop.train(name, strikes=[strike]).code == code
    outcome = workshop.go_on(name)
    assert outcome.code == 0, outcome.output
    assert losses(workshop, name) == losses(workshop, unbroken)
    assert files(workshop, name) == files(workshop, unbroken)
    assert workshop.events(name)[-1]["step"] == workshop.events(unbroken)[-1]["step"]


def test_an_early_end_is_final_until_more_patience_is_given(workshop, unbroken):
    shutil.copytree(workshop.output(unbroken), workshop.output("again"))
    final, last = files(workshop, "again"), workshop.events("again")[-1]["step"]
    outcome = workshop.train("again", "--resume", "latest")
    assert outcome.code == 0, outcome.output
    assert workshop.events("again")[-1]["step"] == last
    assert files(workshop, "again") == final
    outcome = workshop.train("again", "--resume", "latest", early_stopping_patience=3)
    assert outcome.code == 0, outcome.output
    assert workshop.events("again")[-1]["step"] > last


def test_more_patience_or_none_leaves_the_training_as_it_is(workshop, unbroken):
    """Neither measuring nor keeping the best touches what is trained."""
    options = {"validate_every_n_steps": None, "save_best": None, "early_stopping_patience": None, "max_train_steps": 2}
    assert workshop.train("plain", **options).code == 0
    assert files(workshop, "plain", "toad") == files(workshop, unbroken, "toad-step00000002")
