"""The running average of the weights: its formula, its place in the model, its state."""
from __future__ import annotations

import pytest
import torch

from library.optim.average import WeightAverage


def steps_of(weight: torch.nn.Parameter, average: WeightAverage, values: list[float]) -> None:
    for value in values:
        weight.data.fill_(value)
        average.update()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_what_the_formula_says(dtype):
    weight = torch.nn.Parameter(torch.full((3,), 2.0, dtype=dtype))
    average = WeightAverage([weight], decay=0.25)
    steps_of(weight, average, [4.0, 8.0, 16.0, 4.0])
    wanted = 2.0
    for count, value in enumerate([4.0, 8.0, 16.0, 4.0], 1):
        decay = min(0.25, (1 + count) / (10 + count))
        wanted = decay * wanted + (1 - decay) * value
    assert average.averages[0].dtype == torch.float32
    assert average.averages[0].tolist() == pytest.approx([wanted] * 3)
    with average.in_place():
        assert weight.tolist() == pytest.approx([wanted] * 3, rel=0.01)
    assert weight.tolist() == [4.0] * 3


def test_it_goes_on_from_its_state_to_the_bit():
    weight = torch.nn.Parameter(torch.tensor([0.1, 0.2]))
    unbroken = WeightAverage([weight], 0.9999)
    steps_of(weight, unbroken, [0.3, 0.7])
    other = WeightAverage([torch.nn.Parameter(torch.zeros(2))], 0.9999)
    other.load_state_dict(unbroken.state_dict())
    steps_of(weight, unbroken, [0.9])
    steps_of(other.parameters[0], other, [0.9])
    assert torch.equal(unbroken.averages[0], other.averages[0])
    assert unbroken.averages[0].data_ptr() != other.averages[0].data_ptr()
