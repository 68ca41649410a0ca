"""FSDP: each process keeps a part of the U-Net's weights, gradients and optimizer numbers. ZeRO, arXiv 1910.02054; torch's fully_shard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from library.checkpoint.state import StoredOptimizer
from library.errors import UserError
from library.optim.chain import parameters_of
from library.train.sharing import SteppedOptimizer, WholeModels
from library.train.sharing_plan import FSDPSettings

BLOCKS = ("down_blocks", "mid_block", "up_blocks")
STABILISER = 1e-6  # as in torch's clip_grad_norm_


class ShardedUNet(WholeModels):
    """The U-Net is in parts; text encoders, words and networks, which are small beside it, stay whole and are averaged."""

    in_parts = True

    def __init__(self, accelerator: Accelerator, settings: FSDPSettings, writes_model: bool):
        super().__init__(accelerator)
        self._settings = settings
        self._writes_model = writes_model  # saved files hold the U-Net
        self._unet: nn.Module | None = None
        self._optimizer: Optimizer | None = None

    def shard(self, unet: nn.Module) -> None:
        from torch.distributed.device_mesh import init_device_mesh  # here and below: few runs need what takes a second to import
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for unit in units_of(unet, self._settings):
            fully_shard(unit, mesh=mesh, reshard_after_forward=self._settings.reshard_after_forward)
        fully_shard(unet, mesh=mesh, reshard_after_forward=self._settings.reshard_after_forward)
        self._unet = unet

    def begin(self, optimizer: Optimizer, modules: Mapping[str, nn.Module], unet: nn.Module) -> SteppedOptimizer:
        self._optimizer = optimizer
        return super().begin(optimizer, modules, unet)

    def backward(self, loss: Tensor, share: float, ends_step: bool) -> None:
        """A filler's too, for the others wait for this process's part."""
        (loss * share).backward()

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Those of parts are averaged in the backward pass."""
        super().average([parameter for parameter in parameters if not is_part(parameter)])

    @torch.no_grad()
    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = [gradient.to_local() for gradient in gradients if is_part(gradient)]  # type: ignore[attr-defined]
        whole = [gradient for gradient in gradients if not is_part(gradient)]
        squares = _square_of_norm(parts, self.device)
        torch.distributed.all_reduce(squares)
        norm = float((squares + _square_of_norm(whole, self.device)).sqrt())
        if max_norm and math.isfinite(norm) and norm > max_norm:
            for gradient in parts + whole:
                gradient *= max_norm / (norm + STABILISER)
        return norm

    @contextmanager
    def whole(self, with_state: bool) -> Iterator[None]:
        """Gathered tensor by tensor, on the CPU of the main process only."""
        from torch.distributed.fsdp import FSDPModule

        assert self._unet is not None and self._optimizer is not None, "the run has begun"
        for module in self._unet.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a validation may have left gathered
        holders: list[dict[str, Any]] = [module._parameters for module in self._unet.modules()] if self._writes_model else []
        holders += self._optimizer.state.values() if with_state else []
        parts: list[tuple[dict[str, Any], str, Any]] = []
        for holder in holders:
            for name, tensor in holder.items():
                if is_part(tensor):
                    gathered = tensor.full_tensor().detach()
                    if self.is_main:
                        parts.append((holder, name, tensor))
                        gathered = gathered.cpu()
                        is_weight = isinstance(tensor, nn.Parameter)
                        holder[name] = nn.Parameter(gathered, tensor.requires_grad) if is_weight else gathered
        try:
            yield
        finally:
            for holder, name, part in parts:
                holder[name] = part

    def stored(self, optimizer: Optimizer) -> StoredOptimizer:
        return _WholeInFile(optimizer)


class _WholeInFile:
    """An optimizer whose state file holds whole tensors, so that it is like one of whole models."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        from torch.distributed.tensor import distribute_tensor

        parameters = parameters_of(self.optimizer)
        for number, numbers in state_dict["state"].items():
            weight: Any = parameters[number]
            for name, tensor in numbers.items():
                if is_part(weight) and isinstance(tensor, Tensor) and tensor.shape == weight.shape:
                    tensor = tensor.to(weight.device)  # every process has read the file: nothing is sent
                    numbers[name] = distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)
        self.optimizer.load_state_dict(state_dict)
        self.param_groups = self.optimizer.param_groups


def is_part(tensor: Any) -> bool:
    """Whether each process has a part of the tensor only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def units_of(unet: nn.Module, settings: FSDPSettings) -> list[nn.Module]:
    """The modules that are gathered one at a time, inner ones first; what is in none of them is gathered with the whole U-Net."""
    inner = list(unet.modules())[:0:-1]
    if settings.class_names:
        units = [module for module in inner if type(module).__name__ in settings.class_names]
        if not units:
            names = ", ".join(settings.class_names)
            raise UserError(f"fsdp_transformer_layer_cls_to_wrap: the U-Net has no {names}; write BasicTransformerBlock,ResnetBlock2D")
        return units
    if settings.least_parameters is None:
        return [block for name in BLOCKS for block in _blocks(getattr(unet, name))]
    units, taken = [], set[int]()
    for module in inner:
        free = [parameter for parameter in module.parameters() if id(parameter) not in taken]
        if sum(parameter.numel() for parameter in free) >= settings.least_parameters:
            units.append(module)
            taken.update(map(id, free))
    return units


def _blocks(module: nn.Module | None) -> list[nn.Module]:
    if module is None:
        return []
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _square_of_norm(gradients: list[Tensor], device: torch.device) -> Tensor:
    if not gradients:
        return torch.zeros((), device=device)
    return torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]).square().sum()
