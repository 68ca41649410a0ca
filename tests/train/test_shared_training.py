"""Processes that share the model (FSDP, DeepSpeed) train what one process trains: losses, files, validation, samples, resuming."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from library.config.settings import options_for
from tests.train.launches import ACCELERATE, TWO_PROCESSES, launch
from tests.train.runs import Workshop, make_workshop, write_picture

STEPS, SAVED_AT = 6, 3  # two epochs
PICTURES = 9  # 3 of them are held out: 2 batches for one process, 1 for the other
FSDP = """\
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_transformer_layer_cls_to_wrap: BasicTransformerBlock,ResnetBlock2D
  fsdp_version: 2
main_process_port: 0
num_machines: 1
num_processes: 2
"""
LORA, FULL = "train_network.py", "fine_tune.py"
NO_DEEPSPEED = importlib.util.find_spec("deepspeed") is None

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not built for Windows")


@pytest.fixture(scope="module", params=[LORA, FULL])
def workshop(request, tmp_path_factory) -> Workshop:
    """All pictures are alike, so that it does not matter which of them is the first of a batch."""
    folder = tmp_path_factory.mktemp("shared")
    prompts = folder / "prompts.txt"
    prompts.write_text("toad --w 64 --h 64 --s 2\n", encoding="utf-8")
    options = {
        "max_train_steps": STEPS, "save_state": True, "save_every_n_steps": SAVED_AT, "validation_split": 0.33,
        "optimizer_args": ["eps=1e-4"], "lr_scheduler": "cosine", "sample_prompts": str(prompts), "sample_every_n_steps": STEPS,
        "train_text_encoder": True, "save_model_as": "safetensors", "max_grad_norm": 0.1,
    }  # fmt: skip
    taken = options_for(request.param)
    made = make_workshop(folder, request.param, **{name: value for name, value in options.items() if name in taken})
    for number in range(PICTURES):
        write_picture(folder / "data" / "1_toad" / f"{number}.png", 0)
        (folder / "data" / "1_toad" / f"{number}.txt").write_text("toad", encoding="utf-8")
    (folder / "fsdp.yaml").write_text(FSDP, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def alone(workshop) -> str:
    outcome = workshop.train("alone", train_batch_size=2)
    assert outcome.code == 0, outcome.output
    return "alone"


def run(workshop: Workshop, name: str, launcher: tuple[str, ...], *flags: str) -> None:
    training = launch(workshop, name, launcher, [workshop.script], workshop.config(name), *flags)
    try:
        assert training.exit_codes(2) == [0, 0], training.output()
    finally:
        training.end()


def with_fsdp(workshop: Workshop) -> tuple[str, ...]:
    return (*ACCELERATE, "--config_file", str(workshop.folder / "fsdp.yaml"))


@pytest.fixture(scope="module")
def sharded(workshop) -> str:
    run(workshop, "sharded", with_fsdp(workshop))
    return "sharded"


def values(workshop: Workshop, name: str, event: str, key: str) -> list[float]:
    return [found[key] for found in workshop.events(name) if found["event"] == event]


def weights(workshop: Workshop, name: str) -> dict[str, torch.Tensor]:
    return load_file(workshop.output(name) / "toad.safetensors")


def check_the_same(workshop: Workshop, name: str, alone: str) -> None:
    """As one process with batches twice as large."""
    for event, key in (("step", "loss"), ("step", "grad_norm"), ("validation", "loss")):
        expected = values(workshop, alone, event, key)
        assert len(expected) == (STEPS if event == "step" else 2)
        assert values(workshop, name, event, key) == pytest.approx(expected, rel=1e-3), (event, key)
    ours, theirs = weights(workshop, name), weights(workshop, alone)
    assert ours.keys() == theirs.keys()
    for tensor_name, tensor in theirs.items():
        torch.testing.assert_close(ours[tensor_name], tensor, atol=1e-4, rtol=1e-3)
    assert len(list((workshop.output(name) / "sample").glob("toad_0*.png"))) == 1


def check_resuming(workshop: Workshop, name: str, launcher: tuple[str, ...], *flags: str) -> None:
    """From the middle to the very weights of the unbroken run."""
    state = next(workshop.output(name).glob(f"toad-step{SAVED_AT:08d}-state"))
    resumed = f"{name}-resumed"
    shutil.copytree(state, workshop.output(resumed) / state.name)
    run(workshop, resumed, launcher, "--resume", str(workshop.output(resumed) / state.name), *flags)
    ours, theirs = weights(workshop, resumed), weights(workshop, name)
    assert all(torch.equal(ours[tensor_name], tensor) for tensor_name, tensor in theirs.items())
    assert values(workshop, resumed, "step", "loss") == values(workshop, name, "step", "loss")[SAVED_AT:]


def test_fsdp_trains_what_one_process_trains(workshop, sharded, alone):
    check_the_same(workshop, sharded, alone)


def test_a_state_of_fsdp_holds_whole_tensors(workshop, sharded, alone):
    folders = [Path(workshop.output(name)) / f"toad-step{STEPS:08d}-state" for name in (sharded, alone)]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in folders)
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in theirs.items()}
    moments = [torch.load(folder / "optimizer.bin", weights_only=True)["state"] for folder in folders]
    shapes = [[tuple(numbers["exp_avg"].shape) for numbers in of_one.values()] for of_one in moments]
    assert shapes[0] == shapes[1] != []


def test_fsdp_with_a_filler_copy_trains_what_two_whole_processes_train(workshop):
    """5 pictures are 3 batches for each process, one of them a copy that does not count but that the other one waits for."""
    if workshop.script == FULL:
        pytest.skip("the same for both; one is enough")
    flags = ("--validation_split", "0.45", "--max_train_steps", "3")
    run(workshop, "plain", TWO_PROCESSES, *flags)
    run(workshop, "filled", with_fsdp(workshop), *flags)
    for event, key in (("step", "loss"), ("step", "grad_norm"), ("validation", "loss")):
        assert values(workshop, "filled", event, key) == pytest.approx(values(workshop, "plain", event, key), rel=1e-4)


def test_fsdp_resumes(workshop, sharded):
    if workshop.script == LORA:
        pytest.skip("a network is whole in each process, and so is its state")
    check_resuming(workshop, sharded, with_fsdp(workshop))


@pytest.mark.skipif(NO_DEEPSPEED, reason="DeepSpeed is not installed")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_trains_what_one_process_trains_and_resumes(workshop, alone, stage):
    name, flags = f"stage{stage}", ("--deepspeed", "--zero_stage", str(stage))
    run(workshop, name, TWO_PROCESSES, *flags)
    check_the_same(workshop, name, alone)
    check_resuming(workshop, name, TWO_PROCESSES, *flags)
