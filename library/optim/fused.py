"""Steps that are taken during the backward pass, as soon as gradients are there, so that few gradients exist at a time."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from library.optim.chain import OptimizerChain, parameters_of


class FusedOptimizer(OptimizerChain):
    """A chain whose members step in the backward pass: each when all its weights have their gradients.

    Gradients are clipped tensor by tensor, for the norm of all is known only when the first are gone. A gradient that is no number
    moves nothing and shows in `take_norm`.
    """

    def __init__(self, members: list[Optimizer], max_grad_norm: float, seed: int = 0):
        super().__init__(members, seed)
        self.max_grad_norm = max_grad_norm  # 0: no clipping
        self._squares: list[Tensor] = []  # of the norms of this step's gradients
        self._arrived = [0] * len(members)
        for number, member in enumerate(members):
            for parameter in parameters_of(member):
                parameter.register_post_accumulate_grad_hook(partial(self._on_gradient, number))

    def _on_gradient(self, number: int, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        norm = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
        self._squares.append(norm.square())
        scale = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0) if self.max_grad_norm else torch.ones_like(norm)
        parameter.grad = torch.where(norm.isfinite(), parameter.grad * scale.to(parameter.grad.dtype), 0)
        self._arrived[number] += 1
        waiting = sum(weights.requires_grad for weights in parameters_of(self.members[number]))
        if self._arrived[number] == waiting:
            self._step_now(number)

    @torch.no_grad()
    def _step_now(self, number: int) -> None:
        self.step_member(number)
        self.members[number].zero_grad(set_to_none=True)
        self._arrived[number] = 0

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """What is left: members of which some weights had no gradient."""
        for number, arrived in enumerate(self._arrived):
            if arrived:
                self._step_now(number)
        self.steps += 1
        return None

    def take_norm(self) -> float:
        """The norm of all gradients of this step together, before clipping."""
        squares, self._squares = self._squares, []
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
