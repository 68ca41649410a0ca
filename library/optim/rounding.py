"""Steps of weights that are stored in float16 or bfloat16: taken in float32, then rounded at random so that on average nothing is lost.

Rounded to the nearest, an update below half the distance between two numbers would vanish, each time. See "Revisiting BFloat16
Training" (arXiv 2010.06192).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from library.seeding import seed_from

LOST_BITS = {torch.bfloat16: 16, torch.float16: 13}  # of a float32's mantissa
LEAST_NORMAL = 2.0**-14  # of float16; smaller numbers have a fixed distance

Rounding = Callable[[Tensor, torch.dtype, int], Tensor]  # (values, dtype, number of the weight) -> values in that dtype


def stochastic_rounding(*keys: int | str) -> Rounding:
    """Rounds up or down with probabilities that make the mean exact; the draws are a function of the keys."""

    def rounded(values: Tensor, dtype: torch.dtype, number: int) -> Tensor:
        generator = torch.Generator(values.device).manual_seed(seed_from("rounding", *keys, number))
        lost = LOST_BITS[dtype]
        offset = torch.zeros_like(values)
        if dtype == torch.float16:
            offset = torch.where(values.abs() < LEAST_NORMAL, LEAST_NORMAL, 0.0).copysign(values)
        bits = (values + offset).view(torch.int32)
        bits += torch.randint(2**lost, bits.shape, generator=generator, device=values.device, dtype=torch.int32)
        return (bits & -(2**lost)).view(torch.float32).sub(offset).to(dtype)

    return rounded


def to_nearest(values: Tensor, dtype: torch.dtype, number: int) -> Tensor:
    return values.to(dtype)


@contextmanager
def in_float32(parameters: Iterable[nn.Parameter], rounding: Rounding) -> Iterator[None]:
    """Inside, weights of fewer bits and their gradients are float32; after it the weights are rounded, their gradients gone."""
    small = [(number, parameter) for number, parameter in enumerate(parameters) if parameter.dtype in LOST_BITS]
    stored = [parameter.data for _, parameter in small]
    for _, parameter in small:
        gradient, parameter.grad = parameter.grad, None
        parameter.data = parameter.data.float()
        if gradient is not None:
            parameter.grad = gradient.float()
    yield
    for (number, parameter), weights in zip(small, stored, strict=True):
        weights.copy_(rounding(parameter.data, weights.dtype, number))
        parameter.grad = None
        parameter.data = weights


@contextmanager
def as_if_float32(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, weights of fewer bits say that they are float32, so that the optimizer's numbers that are loaded stay so."""
    small = [parameter for parameter in parameters if parameter.dtype in LOST_BITS]
    stored = [parameter.data for parameter in small]
    for parameter in small:
        parameter.data = torch.zeros((), device=parameter.device).expand(parameter.shape)  # takes no memory
    yield
    for parameter, weights in zip(small, stored, strict=True):
        parameter.data = weights
