"""One low-rank adapter: down projection, up projection, and the hook that adds their product to a layer's output."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.lora_settings import Dropouts


@dataclass(frozen=True)
class Target:
    """A layer that can be adapted. Its weight is [out, in] or [out, in, height, width]."""

    name: str  # in the keys of LoRA files
    path: str  # in the model
    module: nn.Linear | nn.Conv2d
    text_encoder: int | None = None  # which text encoder it belongs to; None: the U-Net
    block: int | None = None  # of the U-Net, as block arguments count

    @property
    def is_spatial(self) -> bool:
        """A convolution that looks at neighbours, as opposed to a linear map of each pixel."""
        return isinstance(self.module, nn.Conv2d) and self.module.kernel_size != (1, 1)


class LoRAModule(nn.Module):
    """Low-rank adaptation of one layer (Hu et al. 2021, arXiv:2106.09685): adds alpha / rank * up(down(x)), kept in fp32."""

    alpha: Tensor

    def __init__(self, target: Target, rank: int, alpha: float, dropouts: Dropouts, multiplier: float):
        super().__init__()
        self.target = target
        self.rank = rank
        self.dropouts = dropouts
        self.multiplier = multiplier
        self.lora_down, self.lora_up = _projections(target.module, rank)
        self.register_buffer("alpha", torch.tensor(float(alpha or rank), dtype=torch.float32, device="cpu"))
        self.scale = float(alpha or rank) / rank  # beside the tensor, because reading a tensor on a GPU stalls the forward pass
        self.register_load_state_dict_post_hook(_refresh_scale)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)

    def apply_to(self) -> None:
        """From now on the layer gives the adapted output."""
        self.target.module.register_forward_hook(self._add_to_output)

    def _add_to_output(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.multiplier == 0 or self._is_dropped():
            return output
        x = inputs[0]
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_down.weight.dtype)
        return output + self(x).to(output.dtype)

    def _is_dropped(self) -> bool:
        return self.training and self.dropouts.module > 0 and float(torch.rand(())) < self.dropouts.module

    def forward(self, x: Tensor) -> Tensor:
        """What the adapter adds for the layer's input [B, ..., in] or [B, in, h, w]."""
        hidden = self.lora_down(x)
        factor = self.multiplier * self.scale
        if self.training:
            if self.dropouts.neuron > 0:
                hidden = functional.dropout(hidden, self.dropouts.neuron)
            if self.dropouts.rank > 0:
                hidden = hidden * self._kept_ranks(hidden)
                factor /= 1 - self.dropouts.rank
        return self.lora_up(hidden) * factor

    def _kept_ranks(self, hidden: Tensor) -> Tensor:
        """0 or 1 per sample and rank, in a shape that multiplies `hidden`."""
        shape = [1] * hidden.ndim
        shape[0] = len(hidden)
        shape[1 if isinstance(self.lora_down, nn.Conv2d) else -1] = self.rank
        return (torch.rand(shape, device=hidden.device) >= self.dropouts.rank).to(hidden.dtype)

    def weight_delta(self) -> Tensor:
        """What the adapter adds to the layer's weight, in its shape, at multiplier 1."""
        product = self.lora_up.weight.flatten(1) @ self.lora_down.weight.flatten(1)
        return self.scale * product.view(self.target.module.weight.shape)

    def weight_delta_norm(self) -> Tensor:
        """Frobenius norm of `weight_delta` without building it: |UD|^2 = sum(U'U * DD')."""
        up, down = self.lora_up.weight.flatten(1), self.lora_down.weight.flatten(1)
        return abs(self.scale) * ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()


def _projections(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """Into the rank and out of it. A convolution goes down with the layer's own kernel and up pixel by pixel."""
    if isinstance(layer, nn.Linear):
        down = nn.Linear(layer.in_features, rank, bias=False, dtype=torch.float32)
        return down, nn.Linear(rank, layer.out_features, bias=False, dtype=torch.float32)
    shared = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    geometry: dict[str, Any] = {name: getattr(layer, name) for name in shared}
    conv_down = nn.Conv2d(layer.in_channels, rank, **geometry, bias=False, dtype=torch.float32)
    return conv_down, nn.Conv2d(rank, layer.out_channels, 1, bias=False, dtype=torch.float32)


def _refresh_scale(module: LoRAModule, _: object) -> None:
    """Weights and alpha belong together: whoever loads them gets the scale they were trained with."""
    module.scale = (float(module.alpha) or module.rank) / module.rank
