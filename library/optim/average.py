"""A running average of the trained weights (EMA), which is often better than the weights themselves."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows weights: after each step, average = decay x average + (1 - decay) x weights, in float32.

    The first steps have less decay, (1 + n) / (10 + n) after n of them, so that the first weights are soon forgotten.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters = list(parameters)
        self.decay = decay
        self.steps = 0
        self.averages: list[Tensor] = [parameter.detach().to(torch.float32, copy=True) for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """After each optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter.detach().float(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the weights are their averages; after it they are as before, to the bit."""
        with torch.no_grad():
            copies = [parameter.detach().to("cpu", copy=True) for parameter in self.parameters]
            for average, parameter in zip(self.averages, self.parameters, strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for copy, parameter in zip(copies, self.parameters, strict=True):
                    parameter.copy_(copy)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        for average, stored in zip(self.averages, state_dict["averages"], strict=True):
            average.copy_(stored)
