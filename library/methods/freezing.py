"""What methods do to the modules of a model: freezing, gradient checkpointing, looking for numbers that are none."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from library.types import Parts


def freeze(parts: Parts) -> None:
    """No part is trained and no dropout of theirs is at work."""
    for module in (parts.unet, parts.vae, *parts.text_encoders):
        module.eval().requires_grad_(False)


def enable_checkpointing(models: Iterable[nn.Module]) -> list[nn.Module]:
    """Makes models keep less for the backward pass; returns the modules that do so while they are in training mode.

    Only these need that mode. Everything else in a frozen model stays in evaluation mode, so that its dropouts stay off.
    """
    checkpointed: list[nn.Module] = []
    for model in models:
        for module in model.modules():
            if _enable_checkpointing(module):
                break
        checkpointed += [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    return checkpointed


def _enable_checkpointing(module: Any) -> bool:
    """Whether the module knows how to; each library, and each age of transformers, calls it something else."""
    not_reentrant = {"use_reentrant": False}  # the other kind needs inputs with gradients
    if hasattr(module, "enable_gradient_checkpointing"):
        module.enable_gradient_checkpointing()
    elif hasattr(module, "activation_checkpointing_enable"):
        module.activation_checkpointing_enable(activation_checkpointing_kwargs=not_reentrant)
    elif hasattr(module, "gradient_checkpointing_enable"):
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=not_reentrant)
    else:
        return False
    return True


@torch.no_grad()
def not_finite(module: nn.Module, dtype: torch.dtype | None) -> list[str]:
    """The names of tensors with an infinity or a NaN, as they are or once cast to `dtype`."""
    tensors = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    if not tensors:
        return []
    finite = torch.stack([tensor.to(dtype or tensor.dtype).isfinite().all() for tensor in tensors.values()]).tolist()
    return [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
