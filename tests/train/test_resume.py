"""A run that is killed at whatever instant, or stopped, and resumed ends with the very weights of one that was left alone."""

from __future__ import annotations

import os
import signal

import pytest

from tests.train.runs import KILL, Strike, Workshop, make_workshop, tensors_hash

OPTIONS = {
    "train_batch_size": 1,
    "gradient_accumulation_steps": 2,  # 5 pictures: 3 steps per epoch, the last one of a single batch
    "max_train_steps": 10,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 3,
    "shuffle_caption": True,
    "flip_aug": True,
    "network_dropout": 0.1,
    "save_every_n_steps": 4,
    "save_last_n_steps": 3,  # the saves of step 4 go after those of step 8
    "save_state": True,
}

BACKWARD = "library.train.runtime.Runtime.backward"
OPTIMIZER_STEP = "torch.optim.AdamW.step"
RENAME = "library.checkpoint.files.replace"
REMOVE = "library.checkpoint.saver.remove"
WEIGHTS = "library.methods.adapter.AdapterMethod.write"
STATE_WEIGHTS = "library.checkpoint.state.save_file"
STATE_OPTIMIZER = "torch.save"
LOAD_STATE = "library.train.run.load_state"

# Where the first run is killed, and where the run that goes on from there.
KILLS = {
    "state save": (Strike(STATE_WEIGHTS, 2, "half-way"), Strike(STATE_OPTIMIZER, 1, "half-way")),
    "weight save": (Strike(WEIGHTS, 1, "half-way"), Strike(WEIGHTS, 2, "half-way")),
    "before a rename": (Strike(RENAME, 13, "before"), Strike(RENAME, 9, "before")),
    "after a rename": (Strike(RENAME, 14, "after"), Strike(RENAME, 7, "after")),
    "mid-step": (Strike(BACKWARD, 9, "after"), Strike(OPTIMIZER_STEP, 3, "after")),
    "removal, then resuming": (Strike(REMOVE, 1, "after"), Strike(LOAD_STATE, 1, "before")),
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor a SIGTERM that can be caught")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"), **OPTIONS)


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    """The hash of the weights of a run that was left alone; they are not those of its first save."""
    outcome = workshop.train("unbroken", save_last_n_steps=None)
    assert outcome.code == 0, outcome.output
    final = final_hash(workshop, "unbroken")
    assert final != tensors_hash(workshop.output("unbroken") / "toad-step00000004.safetensors")
    return final


def final_hash(workshop: Workshop, name: str) -> str:
    return tensors_hash(workshop.output(name) / "toad.safetensors")


def assert_same(workshop: Workshop, name: str, unbroken: str) -> None:
    final = final_hash(workshop, name)
    print(f"unbroken {unbroken}\n{name:8} {final}")
    assert final == unbroken


def test_the_weights_are_not_those_of_step_0(workshop, unbroken):
    outcome = workshop.train("step-0", lr_scheduler="constant_with_warmup", max_train_steps=1)  # its first rate is 0
    assert outcome.code == 0, outcome.output
    assert workshop.events("step-0")[1]["lr"]["unet"] == 0
    print(f"unbroken {unbroken}\nstep 0   {final_hash(workshop, 'step-0')}")
    assert final_hash(workshop, "step-0") != unbroken


@pytest.mark.parametrize("point", KILLS)
def test_killed_twice_and_resumed(workshop, unbroken, point):
    """Every other time with two workers, which change nothing either."""
    first, second = KILLS[point]
    name = point.replace(" ", "-")
    workers = 2 * (list(KILLS).index(point) % 2)
    outcome = workshop.train(name, strikes=[first], max_data_loader_n_workers=workers)
    assert outcome.code == -KILL, outcome.output
    assert not (workshop.output(name) / "toad.safetensors").exists()
    outcome = workshop.go_on(name, strikes=[second], max_data_loader_n_workers=workers)
    assert outcome.code == -KILL, outcome.output
    outcome = workshop.go_on(name, max_data_loader_n_workers=workers)
    assert outcome.code == 0, outcome.output
    assert_same(workshop, name, unbroken)
    left = [path.name for path in workshop.output(name).iterdir() if path.name.startswith(".")]
    assert left == []  # no torn files


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal_and_resumed(workshop, unbroken, number, code):
    name = number.name
    outcome = workshop.train(name, strikes=[Strike(BACKWARD, 8, "before", number)])  # in step 5
    assert outcome.code == code, outcome.output
    assert (workshop.output(name) / "toad-step00000005.safetensors").is_file()
    assert (workshop.output(name) / "toad-step00000005-state").is_dir()
    end = workshop.events(name)[-1]
    assert (end["event"], end["step"], end["finished"]) == ("end", 5, False)
    outcome = workshop.train(name, "--resume", "latest")
    assert outcome.code == 0, outcome.output
    assert "toad-step00000005-state, where 5 steps are done" in outcome.output
    assert_same(workshop, name, unbroken)


def test_a_second_signal_leaves_at_once(workshop):
    strikes = [Strike(BACKWARD, 2, "before", signal.SIGTERM), Strike(OPTIMIZER_STEP, 1, "after", signal.SIGTERM)]
    outcome = workshop.train("impatient", strikes=strikes, constants={"library.train.signals.SAME_GESTURE_S": -1.0})
    assert outcome.code == 143
    assert list(workshop.output("impatient").glob("toad-step*")) == []


def test_a_signal_while_latents_are_cached(workshop):
    strike = Strike("library.data.cache_fill._Filling._encode_batch", 2, "after", signal.SIGTERM)
    outcome = workshop.train("caching", strikes=[strike])
    assert outcome.code == 143, outcome.output
    assert [event["event"] for event in workshop.events("caching")] == ["start", "stopped", "end"]
    assert list(workshop.output("caching").glob("toad-step*")) == []


def test_a_signal_while_the_data_is_read(workshop):
    strike = Strike("library.train.plan.prepare_datasets", 1, "before", signal.SIGINT)
    outcome = workshop.train("reading", strikes=[strike])
    assert outcome.code == 130, outcome.output
    assert not workshop.events("reading")
