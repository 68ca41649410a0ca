"""A small trained thing: matrices, a bias and a gradient that is a function of the step."""
from __future__ import annotations

import pytest
import torch


class Problem:
    """Two groups of parameters with gradients that pull them towards a target; one matrix is big enough for 8 bit states."""

    def __init__(self, dtype=torch.float32):
        generator = torch.Generator().manual_seed(3)
        shapes = [(64, 80), (5,), (3, 4)]
        self.weights = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]

    def groups(self, text_encoder_lr=None, unet_lr=None):
        return [
            {"params": self.weights[:1], "lr": text_encoder_lr, "name": "textencoder"},
            {"params": self.weights[1:], "lr": unet_lr, "name": "unet"},
        ]

    def backward(self, step):
        generator = torch.Generator().manual_seed(step)
        for weight in self.weights:
            noise = torch.randn(weight.shape, generator=generator)
            weight.grad = (weight.detach().float() - 0.5 + 0.3 * noise).to(weight.dtype)

    def train(self, optimizer, steps, scheduler=None):
        for step in steps:
            self.backward(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if scheduler is not None:
                scheduler.step(1.0 / step)

    def snapshot(self):
        return [weight.detach().clone() for weight in self.weights]


@pytest.fixture
def problem():
    return Problem
