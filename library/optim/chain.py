"""Several optimizers that look like one: each with its own weights, and what it estimates for them."""
from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from library.optim.rounding import as_if_float32, in_float32, stochastic_rounding, to_nearest


class OptimizerChain(Optimizer):
    """Steps its members one after the other.

    D-Adaptation and Prodigy estimate one step size per optimizer and refuse parameter groups of different rates; with a
    member per rate, each rate has its own estimate. Weights of 16 bits are stepped in float32, a member at a time, so that
    the room which that takes is small. The parameter groups are the members' own dictionaries, so that schedules and logs see and
    change the real ones.
    """

    def __init__(self, members: list[Optimizer], seed: int = 0, skips_rate_0: bool = False):
        self.members = members
        self.seed = seed  # of the rounding
        self.skips_rate_0 = skips_rate_0  # a rate of 0, as in the first step of a warm-up, moves nothing, and DAdaptSGD fails on it
        self.steps = 0
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
        for number in range(len(self.members)):
            self.step_member(number)
        self.steps += 1
        return loss

    def step_member(self, number: int) -> None:
        member = self.members[number]
        if self.skips_rate_0 and all(group["lr"] == 0 for group in member.param_groups):
            return
        moving = [parameter for parameter in parameters_of(member) if parameter.grad is not None]
        with in_float32(moving, stochastic_rounding(self.seed, self.steps, number)):
            member.step()

    def eval(self) -> None:
        """Of schedule-free members: the weights are their averages from now on."""
        for member in self.members:
            with in_float32(parameters_of(member), to_nearest):
                member.eval()  # type: ignore[attr-defined]

    def train(self) -> None:
        """The opposite of `eval`."""
        for member in self.members:
            with in_float32(parameters_of(member), to_nearest):
                member.train()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return {"members": [member.state_dict() for member in self.members], "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for member, state in zip(self.members, state_dict["members"], strict=True):
            with as_if_float32(parameters_of(member)):
                member.load_state_dict(state)
        self.steps = state_dict["steps"]
        self._share()


def members_of(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers that do the work."""
    return optimizer.members if isinstance(optimizer, OptimizerChain) else [optimizer]


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def split_groups(groups: list[dict[str, Any]], most: int) -> list[list[dict[str, Any]]]:
    """The parameter groups in portions of at most this many numbers; a larger tensor is a portion by itself."""
    portions: list[list[dict[str, Any]]] = []
    room = 0
    for group in groups:
        for parameter in group["params"]:
            if parameter.numel() > room:
                portions.append([])
                room = most
            room -= parameter.numel()
            portion = portions[-1]
            if not portion or portion[-1]["name"] != group["name"]:
                portion.append({**group, "params": []})
            portion[-1]["params"].append(parameter)
    return portions
