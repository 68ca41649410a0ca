"""How the processes of a run share its work: each has the whole model, and gradients are averaged. What has parts only is beside this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from library.checkpoint.state import StoredOptimizer
from library.optim.fused import FusedOptimizer


class SteppedOptimizer(Protocol):
    """What the loop asks of an optimizer."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


class WholeModels:
    """Every process has all weights and does the same steps. `library.train.fsdp` and `library.train.zero` share otherwise."""

    in_parts = False  # whether a forward or a backward pass needs all processes at once

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.world_size: int = accelerator.num_processes
        self.device: torch.device = accelerator.device
        self.is_main: bool = accelerator.is_main_process
        self._fused: FusedOptimizer | None = None

    def shard(self, unet: nn.Module) -> None:
        """Before the optimizer is made; what is to be loaded into weights is in them."""

    def begin(self, optimizer: Optimizer, modules: Mapping[str, nn.Module], unet: nn.Module) -> SteppedOptimizer:
        """The optimizer that the loop steps: a loss scaler skips steps; without one it is the optimizer as it is."""
        self._fused = optimizer if isinstance(optimizer, FusedOptimizer) else None
        scaler = self.accelerator.scaler
        if scaler is None:
            return optimizer
        scaler.scale(torch.zeros((), device=self.device))  # it begins with a loss, and filler copies may be all that there is at first
        if any(parameter.dtype == torch.float16 for group in optimizer.param_groups for parameter in group["params"]):
            scaler._unscale_grads_ = _allowing_float16(scaler._unscale_grads_)  # it refuses such gradients unless told
        return self.accelerator.prepare_optimizer(optimizer)

    def backward(self, loss: Tensor, share: float, ends_step: bool) -> None:
        """Adds the gradients of the loss times the share of its batch. One that counts nothing needs none."""
        if share > 0:
            self.accelerator.backward(loss * share)

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Mean of the gradients over the processes, in a few large messages. Alike on every process to the bit."""
        if self.world_size == 1:
            return
        touched = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        torch.distributed.all_reduce(touched)
        for parameter, count in zip(parameters, touched.tolist(), strict=True):
            if parameter.grad is None and count:  # every process must send the same list; what nobody touched has no gradient
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            torch.distributed.all_reduce(flat)
            flat /= self.world_size
            for gradient, values in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(values.view_as(gradient))

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        """Scale the gradients so that their joint norm is at most max_norm (0: leave them); returns the norm before.

        An optimizer that steps in the backward pass has clipped by then.
        """
        if self._fused is not None:
            return self._fused.take_norm()
        return float(self.accelerator.clip_grad_norm_(parameters, max_norm or math.inf))

    @contextmanager
    def whole(self, with_state: bool) -> Iterator[None]:
        """Inside, the main process finds weights that are saved whole; with_state: what is stored of the optimizer, too.

        Every process must come here.
        """
        yield

    def stored(self, optimizer: Optimizer) -> StoredOptimizer:
        """What a state holds of the optimizer; its content is complete inside `whole` only."""
        return optimizer


def _allowing_float16(unscale: Callable[..., Any]) -> Callable[..., Any]:
    """The function of torch's scaler that is told, as its last argument, whether gradients may be float16."""
    return lambda optimizer, inverse_scale, found_inf, _: unscale(optimizer, inverse_scale, found_inf, True)


def buckets(gradients: Iterable[Tensor], most: int = 2**24) -> Iterable[list[Tensor]]:
    """Gradients of one dtype grouped so that a message holds about `most` numbers."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (gradient.dtype != bucket[0].dtype or size + gradient.numel() > most):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
