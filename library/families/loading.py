"""Modules from checkpoints: built without memory, checked against the header, then given the stored tensors directly."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from library.errors import UserError
from library.families.source import PartSource
from library.families.weight_files import stored_tensors

logger = logging.getLogger(__name__)
Module = TypeVar("Module", bound=nn.Module)
# Stored beside the weights by some versions, and not weights of the module.
IGNORED = ("position_ids", "text_projection", "logit_scale")


def load_module(
    source: PartSource, build: Callable[[dict[str, Any]], Module], dtype: torch.dtype, device: torch.device | str
) -> Module:
    """The module of `source`, frozen and in eval mode. Weights are never initialised, and held once."""
    with init_empty_weights(), no_init_weights():
        module = build(source.config)
    expected = module.state_dict()
    _check(source, expected)
    wanted_from: dict[str, list[str]] = {}
    for name in expected:
        wanted_from.setdefault(source.places[name].name, []).append(name)
    state = {}
    for stored, tensor in stored_tensors(source.files, wanted_from, source.mapped):
        for name in wanted_from[stored]:
            wanted = expected[name]
            kind = dtype if wanted.is_floating_point() else wanted.dtype
            # Always a copy: results depend on how memory is aligned, in the last bit, and a file's layout must not show in them.
            own = source.places[name].read(tensor).reshape(wanted.shape)
            state[name] = own.to(device=device, dtype=kind, copy=True, memory_format=torch.contiguous_format)
    module.load_state_dict(state, assign=True)
    return module.to(device=device).eval().requires_grad_(False)


def load_unet(source: PartSource, sample_size: int, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """A UNet2DConditionModel. `sample_size`: side of the latents that it was made for, where its configuration does not tell."""
    from library.families.diffusers_models import UNet2DConditionModel

    def build(config: dict[str, Any]) -> nn.Module:
        made: Any = UNet2DConditionModel.from_config({"sample_size": sample_size, **config})
        return made

    return load_module(source, build, dtype, device)


def load_vae(source: PartSource, dtype: torch.dtype, device: torch.device | str, full_precision: bool) -> nn.Module:
    """An AutoencoderKL; in fp32 where asked for."""
    from library.families.diffusers_models import AutoencoderKL

    return load_module(source, AutoencoderKL.from_config, torch.float32 if full_precision else dtype, device)


def _check(source: PartSource, expected: dict[str, Tensor]) -> None:
    """UserError, before a weight is read, where the module and the file do not agree."""
    missing = [name for name in expected if name not in source.shapes]
    if missing:
        raise UserError(f"{source}: {len(missing)} tensors are missing, the first is {missing[0]}")
    for name, empty in expected.items():
        stored = source.shapes[name]
        if _without_ones(stored) != _without_ones(tuple(empty.shape)):
            raise UserError(f"{source}: {name} has the shape {list(stored)}, its configuration says {list(empty.shape)}")
    extra = [name for name in source.shapes if name not in expected and not any(mark in name for mark in IGNORED)]
    if extra:
        logger.warning("%s: %d tensors that this model has no place for are left out, such as %s", source, len(extra), extra[0])


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A matrix is sometimes stored as a 1x1 convolution and the other way round."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
