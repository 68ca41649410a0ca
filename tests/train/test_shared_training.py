"""Processes that share the model (FSDP, DeepSpeed) train what one process trains: losses, files, validation, samples, resuming."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from safetensors.torch import load_file

from library.config.settings import options_for
from tests.train.runs import Workshop, make_workshop, write_picture

STEPS, SAVED_AT = 4, 2  # two epochs
PICTURES = 7  # 3 of them are held out: 2 batches for one process, 1 for the other
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
STAGE_2 = """\
distributed_type: DEEPSPEED
deepspeed_config:
  zero_stage: 2
main_process_port: 0
num_machines: 1
num_processes: 2
"""
LORA, FINE_TUNE, DREAMBOOTH = "train_network.py", "fine_tune.py", "train_db.py"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not built for Windows")
with_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Workshop:
    """All pictures are alike, so that it does not matter which of them is the first of a batch."""
    folder = tmp_path_factory.mktemp("shared")
    prompts = folder / "prompts.txt"
    prompts.write_text("toad --w 64 --h 64 --s 2\n", encoding="utf-8")
    made = make_workshop(
        folder, max_train_steps=STEPS, save_state=True, save_every_n_steps=SAVED_AT, validation_split=0.43,
        optimizer_args=["eps=1e-4"], lr_scheduler="cosine", sample_prompts=str(prompts), sample_every_n_steps=STEPS,
        train_text_encoder=True, save_model_as="safetensors", max_grad_norm=0.1,
    )  # fmt: skip
    for number in range(PICTURES):
        write_picture(folder / "data" / "1_toad" / f"{number}.png", 0)
        (folder / "data" / "1_toad" / f"{number}.txt").write_text("toad", encoding="utf-8")
    return made


def of(model: Workshop, script: str) -> Workshop:
    taken = options_for(script)
    return replace(model, script=script, options={name: value for name, value in model.options.items() if name in taken})


@pytest.fixture(scope="module")
def alone(model) -> dict[str, str]:
    """Of each script, the name of a run by one process with batches twice as large."""
    names = {}
    for script in (LORA, FINE_TUNE, DREAMBOOTH):
        names[script] = f"alone-{script}"
        outcome = of(model, script).train(names[script], train_batch_size=2)
        assert outcome.code == 0, outcome.output
    return names


def told_by_accelerate(folder: Path, answers: str) -> dict[str, str]:
    """What its launcher, with these answers of `accelerate config`, would start the processes with."""
    path = folder / "answers.yaml"
    path.write_text(answers, encoding="utf-8")
    told: dict[str, str] = {}
    with mock.patch("torch.distributed.run.run", lambda _: told.update(os.environ)):
        launch_command(launch_command_parser().parse_args(["--config_file", str(path), "train_network.py"]))
    return {name: value for name, value in told.items() if os.environ.get(name) != value}


@pytest.fixture(scope="module")
def fsdp(model) -> dict[str, str]:
    told = told_by_accelerate(model.folder, FSDP)
    assert told["ACCELERATE_USE_FSDP"] == "true"
    return told


def compile_nothing() -> None:
    """DeepSpeed would compile its own all-reduce for processors, for a minute and a half, which is nothing that a GPU uses."""
    from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False


def run(workshop: Workshop, name: str, environment: dict[str, str], **options: object) -> None:
    has_deepspeed = "deepspeed" in options or "ACCELERATE_USE_DEEPSPEED" in environment
    prepare = compile_nothing if has_deepspeed else None
    outcomes = workshop.train_in_two(name, environment=environment, prepare=prepare, **options)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes


@pytest.fixture(scope="module")
def sharded(model, fsdp) -> str:
    """A whole model under FSDP."""
    run(of(model, FINE_TUNE), "sharded", fsdp)
    return "sharded"


def values(workshop: Workshop, name: str, event: str, key: str) -> list[float]:
    return [found[key] for found in workshop.events(name) if found["event"] == event]


def weights(workshop: Workshop, name: str, file: str = "toad") -> dict[str, torch.Tensor]:
    return load_file(workshop.output(name) / f"{file}.safetensors")


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


def check_resuming(workshop: Workshop, name: str, environment: dict[str, str], **options: object) -> None:
    """From the middle to the very weights of the unbroken run."""
    state = next(workshop.output(name).glob(f"toad-step{SAVED_AT:08d}-state"))
    resumed = f"{name}-resumed"
    shutil.copytree(state, workshop.output(resumed) / state.name)
    run(workshop, resumed, environment, resume=str(workshop.output(resumed) / state.name), **options)
    ours, theirs = weights(workshop, resumed), weights(workshop, name)
    assert all(torch.equal(ours[tensor_name], tensor) for tensor_name, tensor in theirs.items())
    assert values(workshop, resumed, "step", "loss") == values(workshop, name, "step", "loss")[SAVED_AT:]


def test_fsdp_trains_a_whole_model_as_one_process_does(model, sharded, alone):
    check_the_same(of(model, FINE_TUNE), sharded, alone[FINE_TUNE])


def test_fsdp_trains_a_network_as_one_process_does(model, fsdp, alone):
    run(of(model, LORA), "network", fsdp)
    check_the_same(of(model, LORA), "network", alone[LORA])


def test_a_state_of_fsdp_holds_whole_tensors(model, sharded, alone):
    folders = [model.output(name) / f"toad-step{STEPS:08d}-state" for name in (sharded, alone[FINE_TUNE])]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in folders)
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in theirs.items()}
    moments = [torch.load(folder / "optimizer.bin", weights_only=True)["state"] for folder in folders]
    shapes = [[tuple(numbers["exp_avg"].shape) for numbers in of_one.values()] for of_one in moments]
    assert shapes[0] == shapes[1] != []


def test_fsdp_resumes_a_whole_model(model, sharded, fsdp):
    """A network is whole in each process, and so is its state."""
    check_resuming(of(model, FINE_TUNE), sharded, fsdp)


def test_fsdp_with_batches_that_need_different_passes(model, fsdp):
    """A word beside a network, and some pictures with a class prompt, some marked, some neither; as two whole processes train them.

    5 pictures are 3 batches for each process, one of them a copy that does not count but that the other one waits for.
    """
    kinds: list[dict[str, object]] = [{"class_prompt": "frog"}, {"custom_attributes": {"diff_output_preservation": True}}, {}]
    subsets = [{"image_dir": str(model.folder / f"kind{number}"), **kind} for number, kind in enumerate(kinds)]
    for number, kind in enumerate([0, 1, 2, 0, 2]):
        folder = model.folder / f"kind{kind}"
        folder.mkdir(exist_ok=True)
        write_picture(folder / f"{number}.png", number)
        (folder / f"{number}.txt").write_text("toad" if kind == 1 else "zorb", encoding="utf-8")
    dataset = model.folder / "kinds.json"
    dataset.write_text(json.dumps({"datasets": [{"resolution": 64, "subsets": subsets}]}), encoding="utf-8")
    network = of(model, LORA)
    options = {
        "train_data_dir": None, "dataset_config": str(dataset), "validation_split": None, "max_train_steps": 3, "save_state": None,
        "prior_prediction": True, "token_string": "zorb", "init_word": "frog", "token_lr": 1e-2, "save_every_n_steps": 1,
    }  # fmt: skip
    run(network, "plain", {}, **options)
    run(network, "different", fsdp, **options)
    for key in ("loss", "grad_norm"):
        assert values(network, "different", "step", key) == pytest.approx(values(network, "plain", "step", key), rel=1e-4)
    for kind in ("", "-words"):
        first, last = (weights(network, "plain", f"toad{step}{kind}") for step in ("-step00000001", ""))
        assert any(not torch.equal(first[name], tensor) for name, tensor in last.items())
        found = weights(network, "different", f"toad{kind}")
        for name, tensor in last.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3)


@with_deepspeed
@pytest.mark.parametrize(("script", "stage"), [(LORA, 1), (FINE_TUNE, 2), (DREAMBOOTH, 3)])
def test_deepspeed_trains_as_one_process_does(model, alone, script, stage):
    """And whole models go on from the middle. Stage 2 is answered to `accelerate config`, the others are options."""
    workshop, name = of(model, script), f"stage{stage}-{script}"
    environment = told_by_accelerate(model.folder, STAGE_2) if stage == 2 else {}
    options = {} if stage == 2 else {"deepspeed": True, "zero_stage": stage}
    run(workshop, name, environment, **options)
    check_the_same(workshop, name, alone[script])
    if script != LORA:
        check_resuming(workshop, name, environment, **options)


@with_deepspeed
def test_deepspeed_has_parts_of_a_model_that_is_not_trained(model):
    """Stage 3 under a network: one step, for each weight is sent on its own."""
    network = of(model, LORA)
    unwatched = ("validation_split", "sample_prompts", "sample_every_n_steps", "save_every_n_steps", "save_state")
    options = {"max_train_steps": 1, **dict.fromkeys(unwatched)}
    outcome = network.train("one-step", train_batch_size=2, **options)
    assert outcome.code == 0, outcome.output
    run(network, "stage3", {}, deepspeed=True, zero_stage=3, **options)
    for key in ("loss", "grad_norm"):
        assert values(network, "stage3", "step", key) == pytest.approx(values(network, "one-step", "step", key), rel=1e-3)
    found = weights(network, "stage3")
    for name, tensor in weights(network, "one-step").items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3)
