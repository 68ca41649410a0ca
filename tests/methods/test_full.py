"""The method that trains the model itself: which parts are trained, how fast, until when, and what is never written."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from library.config.options import FullOptions, OptimizerOptions
from library.errors import UserError
from library.families.keys_sd import UNET_PREFIX
from library.families.sd import StableDiffusion
from library.methods.base import NotFiniteWeights
from library.methods.full import FullMethod
from library.methods.rates import ENCODERS, block_of, model_rates
from library.types import BatchPlace, Parts
from tests.tiny_models import tiny_sd1_parts, tiny_sdxl_parts, tiny_sdxl_single_file

RATE = 1e-3
BLOCKS = 23


def rates_of(
    family="sd_v1", always_text=True, stop=None, train_text_encoder=False, **optimizer
):
    options = FullOptions(train_text_encoder=train_text_encoder, stop_text_encoder_training=stop)
    encoders = 2 if family == "sdxl" else 1
    return model_rates(options, OptimizerOptions(**{"learning_rate": RATE} | optimizer), family, encoders, always_text)


def attached(parts: Parts, rates, frozen=torch.float32, **more) -> FullMethod:
    method = FullMethod(StableDiffusion(), rates, "safetensors", frozen, **more)
    method.attach(parts, "sd_v1")
    return method


def batch(step: int, ends_epoch: bool = False):
    return SimpleNamespace(place=BatchPlace(1, step, 0, (), 0, True, ends_epoch, 1.0))


def trained(parts: Parts) -> list[str]:
    modules = {"unet": parts.unet, "vae": parts.vae, **dict(zip(ENCODERS, parts.text_encoders, strict=False))}
    kinds = {name: {parameter.requires_grad for parameter in module.parameters()} for name, module in modules.items()}
    assert all(len(kind) == 1 for kind in kinds.values())
    return [name for name, kind in kinds.items() if kind == {True}]


PARTS = [
    ({}, {"unet": RATE, "text_encoder1": RATE}),
    ({"learning_rate_te": 1e-5}, {"unet": RATE, "text_encoder1": 1e-5}),
    ({"learning_rate_te": 0.0}, {"unet": RATE}),
    ({"learning_rate": 0.0, "learning_rate_te": 1e-5}, {"text_encoder1": 1e-5}),
    ({"stop": -1}, {"unet": RATE}),
    ({"stop": 0}, {"unet": RATE}),
    ({"stop": 3}, {"unet": RATE, "text_encoder1": RATE}),
    ({"always_text": False}, {"unet": RATE}),
    ({"always_text": False, "train_text_encoder": True}, {"unet": RATE, "text_encoder1": RATE}),
]


@pytest.mark.parametrize("given, groups", PARTS)
def test_what_is_trained_and_how_fast(given, groups):
    parts = tiny_sd1_parts()
    method = attached(parts, rates_of(**given))
    assert {group["name"]: group["lr"] for group in method.parameter_groups()} == groups
    assert trained(parts) == list(method.modules()) == [name.replace("encoder1", "encoder") for name in groups]
    counted = sum(parameter.numel() for group in method.parameter_groups() for parameter in group["params"])
    assert counted == sum(parameter.numel() for module in method.modules().values() for parameter in module.parameters())
    assert method.trains_text_encoder == ("text_encoder1" in groups)


@pytest.mark.parametrize(
    "given, groups",
    [
        ({"learning_rate_te": 1e-5, "learning_rate_te2": 0.0}, {"unet": RATE, "text_encoder1": 1e-5}),
        ({"learning_rate_te1": 0.0}, {"unet": RATE, "text_encoder2": RATE}),
        ({"learning_rate_te1": 1e-4, "learning_rate_te2": 1e-5}, {"unet": RATE, "text_encoder1": 1e-4, "text_encoder2": 1e-5}),
    ],
)
def test_two_text_encoders_have_rates_of_their_own(given, groups):
    method = attached(tiny_sdxl_parts(), rates_of("sdxl", **given))
    assert {group["name"]: group["lr"] for group in method.parameter_groups()} == groups


def test_blocks_have_rates_of_their_own_and_0_freezes_them():
    parts = tiny_sdxl_parts()
    rates = [0.0] * BLOCKS
    rates[0], rates[12], rates[22] = 1e-4, 2e-4, 3e-4
    method = attached(parts, rates_of("sdxl", always_text=False, block_lr=tuple(rates)))
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert {name: group["lr"] for name, group in groups.items()} == {"block0": 1e-4, "block12": 2e-4, "block22": 3e-4}
    free = {name for name, parameter in parts.unet.named_parameters() if parameter.requires_grad}
    prefixes = ("time_embedding.", "add_embedding.", "mid_block.resnets.1.", "conv_norm_out.", "conv_out.")
    assert free == {name for name, _ in parts.unet.named_parameters() if name.startswith(prefixes)}


def test_every_tensor_of_an_sdxl_u_net_is_in_a_block(tmp_path):
    names = load_file(tiny_sdxl_single_file(tmp_path / "m.safetensors"))
    names = [name.removeprefix(UNET_PREFIX) for name in names if name.startswith(UNET_PREFIX)]
    assert {block_of(name) for name in names} == set(range(BLOCKS))
    assert block_of("input_blocks.8.1.norm.weight") == 9
    assert block_of("output_blocks.0.0.in_layers.0.weight") == 13


MISTAKES = [
    ({"learning_rate_te2": 1e-5}, "learning_rate_te2: this model has one text encoder; write learning_rate_te"),
    ({"block_lr": (RATE,) * BLOCKS}, "block_lr holds 23 values; only SDXL models take them"),
    ({"family": "sdxl", "block_lr": (RATE,)}, "block_lr holds 1 values; there must be 23"),
    ({"learning_rate": 0.0, "stop": -1}, "there is nothing to train"),
    ({"family": "sdxl", "always_text": False, "block_lr": (0.0,) * BLOCKS}, "there is nothing to train"),
]


@pytest.mark.parametrize("given, message", MISTAKES)
def test_rates_that_do_not_fit_are_told(given, message):
    with pytest.raises(UserError, match=message):
        rates_of(**given)


def test_what_is_not_trained_has_the_dtype_of_frozen_weights():
    parts = tiny_sd1_parts()
    attached(parts, rates_of(stop=-1), torch.bfloat16)
    assert {name: next(module.parameters()).dtype for name, module in vars(parts).items() if name in ("unet", "vae")} == {
        "unet": torch.float32, "vae": torch.bfloat16,
    }  # fmt: skip
    assert next(parts.text_encoders[0].parameters()).dtype == torch.bfloat16
    parts = tiny_sd1_parts()
    attached(parts, rates_of(), torch.bfloat16, no_half_vae=True)
    assert {next(module.parameters()).dtype for module in (parts.vae, *parts.text_encoders)} == {torch.float32}


def test_the_text_encoder_is_frozen_from_its_step_on(caplog):
    parts = tiny_sd1_parts()
    method = attached(parts, rates_of(stop=2))
    optimizer = torch.optim.AdamW(method.parameter_groups(), weight_decay=0.5)
    weight = next(parts.text_encoders[0].parameters())
    seen = []
    method.train()
    for step in range(1, 5):
        method.before_batch(batch(step))
        states = parts.text_encoders[0](torch.arange(77)[None])
        sample = parts.unet(torch.ones(1, 4, 8, 8), torch.tensor([5]), states).sample
        sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(weight.detach().clone())
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not parts.text_encoders[0].training
    assert parts.unet.training
    method.eval()
    method.train()
    assert not parts.text_encoders[0].training
    assert "text_encoder" in method.modules()  # its weights are no longer those of the checkpoint
    resumed = tiny_sd1_parts()
    method = attached(resumed, rates_of(stop=2))
    method.before_batch(batch(3))
    assert trained(resumed) == ["unet"]


def test_modes_and_checkpointing_change_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        parts = tiny_sd1_parts()
        method = attached(parts, rates_of(), gradient_checkpointing=checkpointing)
        method.train()
        assert parts.unet.training and parts.text_encoders[0].training and not parts.vae.training
        states = parts.text_encoders[0](torch.arange(77)[None])
        parts.unet(torch.ones(1, 4, 8, 8), torch.tensor([5]), states).sample.square().mean().backward()
        gradients.append([parameter.grad for group in method.parameter_groups() for parameter in group["params"]])
        method.eval()
        assert not any(module.training for module in (*parts.unet.modules(), *parts.text_encoders[0].modules()))
    for without, with_checkpointing in zip(*gradients, strict=True):
        assert torch.equal(without, with_checkpointing)


def test_a_nan_is_never_written(tmp_path: Path):
    parts = tiny_sd1_parts()
    method = attached(parts, rates_of())
    assert not method.has_nan()
    next(parts.text_encoders[0].parameters()).data[0] = 1e5
    with pytest.raises(NotFiniteWeights, match="1 tensors of text_encoder are not finite as float16"):
        method.write(tmp_path / "m.safetensors", torch.float16, {})
    next(parts.unet.parameters()).data[0] = torch.nan
    assert method.has_nan()
    with pytest.raises(NotFiniteWeights, match="of unet are not finite, first"):
        method.write(tmp_path / "m.safetensors", None, {})
    assert list(tmp_path.iterdir()) == []


def test_a_ckpt_counts_epochs_and_steps(tmp_path: Path):
    method = FullMethod(StableDiffusion(), rates_of(), "ckpt", torch.float32)
    method.attach(tiny_sd1_parts(), "sd_v1")
    for step in (1, 2, 3):
        method.before_batch(batch(step, ends_epoch=step == 3))
        method.after_step()
    method.before_batch(batch(0))  # of pictures that are held out
    method.write(tmp_path / "m.ckpt", None, {})
    content = torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (1, 3)
