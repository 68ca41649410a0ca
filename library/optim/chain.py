"""Several optimizers that look like one: for methods that adapt a single learning rate by themselves."""
from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class OptimizerChain(Optimizer):
    """Steps its members one after the other.

    D-Adaptation and Prodigy estimate one step size per optimizer and refuse parameter groups of different rates; with a
    member per rate, each rate has its own estimate. The parameter groups are the members' own dictionaries, so that
    schedules and logs see and change the real ones.
    """

    def __init__(self, members: list[Optimizer]):
        self.members = members
        super().__init__([group for member in members for group in member.param_groups], dict(members[0].defaults))
        self._share()

    def _share(self) -> None:
        """After a member loaded a state it has new dictionaries."""
        self.param_groups = [group for member in self.members for group in member.param_groups]
        self.state = ChainMap(*(member.state for member in self.members))  # type: ignore[assignment]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            # A rate of 0, as in the first step of a warm-up, moves nothing, and DAdaptSGD fails on it.
            if any(group["lr"] > 0 for group in member.param_groups):
                member.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        self._share()
