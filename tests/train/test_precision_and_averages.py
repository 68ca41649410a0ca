"""Weights of 16 bits, steps in the backward pass, and averaged weights: whole runs, and killed ones that go on to the bit."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from tests.train.runs import KILL, Strike, Workshop, make_workshop, tensors_hash

BF16 = {"mixed_precision": "bf16", "full_bf16": True}
ADAFACTOR = {"optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False"]}
MODES = {
    "bf16": BF16,
    "bf16-fused": {**BF16, **ADAFACTOR, "fused_backward_pass": True},
    "groups": {"fused_optimizer_groups": 3, "lr_scheduler": "cosine"},
    "average": {"ema": True, "ema_decay": 0.9},
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("modes"), max_train_steps=4, save_every_n_steps=2, save_state=True)


@pytest.fixture(scope="module")
def plain(workshop) -> Workshop:
    assert workshop.train("plain").code == 0
    return workshop


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("mode", MODES)
def test_killed_and_resumed_to_the_bit(workshop, mode):
    outcome = workshop.train(mode, **MODES[mode])
    assert outcome.code == 0, outcome.output
    killed = workshop.train(f"{mode}-killed", strikes=[Strike("library.train.runtime.Runtime.backward", 4, "after")], **MODES[mode])
    assert killed.code == -KILL, killed.output
    resumed = workshop.go_on(f"{mode}-killed", **MODES[mode])
    assert resumed.code == 0, resumed.output
    assert "where 2 steps are done" in resumed.output
    files = [workshop.output(name) / "toad.safetensors" for name in (mode, f"{mode}-killed")]
    assert tensors_hash(files[0]) == tensors_hash(files[1])


def test_weights_are_saved_as_they_are_trained(workshop):
    assert workshop.train("half", max_train_steps=1, **BF16).code == 0
    assert {tensor.dtype for tensor in load_file(workshop.output("half") / "toad.safetensors").values()} == {torch.bfloat16}
    assert workshop.events("half")[1]["loss"] > 0


def test_the_average_is_saved_and_the_run_goes_on_from_the_weights(plain):
    outcome = plain.train("averaged", ema=True, ema_decay=0.9)
    assert outcome.code == 0, outcome.output
    losses = [[event["loss"] for event in plain.events(name) if event["event"] == "step"] for name in ("plain", "averaged")]
    assert losses[0] == losses[1]
    folder = plain.output("averaged")
    state = load_file(folder / "toad-step00000004-state" / "model.safetensors")
    saved = load_file(folder / "toad.safetensors")
    final = load_file(plain.output("plain") / "toad.safetensors")
    assert all(torch.equal(state[f"network.{name}"], tensor) for name, tensor in final.items())
    name = next(name for name in final if name.startswith("lora_unet") and name.endswith("lora_up.weight"))
    averages = [load_file(folder / f"toad-step0000000{step}.safetensors")[name] for step in (2, 4)]
    assert torch.equal(averages[-1], saved[name])
    assert [average.norm() < final[name].norm() for average in averages] == [True] * 2  # from 0, and behind


def test_samples_are_drawn_with_the_average_when_asked(plain):
    prompts = plain.folder / "prompts.txt"
    prompts.write_text("a toad --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    options = {"sample_prompts": str(prompts), "sample_every_n_steps": 4, "save_state": None, "learning_rate": 0.1, "ema_decay": 1.0}
    pictures = {}
    for name, more in {"raw": {"ema": True}, "drawn": {"ema": True, "ema_samples": True}}.items():
        assert plain.train(name, **options, **more).code == 0
        (picture,) = (plain.output(name) / "sample").glob("toad_000004*.png")
        pictures[name] = picture.read_bytes()
    assert pictures["raw"] != pictures["drawn"]


def test_steps_in_the_backward_pass_are_the_plain_ones(plain):
    """Clipped far away, in every case."""
    for name, more in {"after": {}, "during": {"fused_optimizer_groups": 3}}.items():
        assert plain.train(name, max_grad_norm=1e6, **more).code == 0
    assert tensors_hash(plain.output("after") / "toad.safetensors") == tensors_hash(plain.output("during") / "toad.safetensors")
    norms = [[event["grad_norm"] for event in plain.events(name) if event["event"] == "step"] for name in ("after", "during")]
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
