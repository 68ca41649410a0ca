"""Weights of 16 bits move by small updates as those of 32 bits do, with every optimizer, and go on from a state to the bit."""
from __future__ import annotations

import io

import pytest
import torch

from library.config.options import OptimizerOptions
from library.optim.names import SHORT_NAMES
from library.optim.optimizers import build_optimizer, evaluation_weights
from library.optim.rounding import stochastic_rounding

NAMES = [short.name for short in SHORT_NAMES.values()]
FINDS_ITS_RATE = [name for name in NAMES if name.startswith("DAdapt") or name == "Prodigy"]
SIXTEEN_BITS = [torch.bfloat16, torch.float16]


def options_for(name: str, rate: float = 1e-2) -> OptimizerOptions:
    return OptimizerOptions(optimizer_type=name, learning_rate=1.0 if name in FINDS_ITS_RATE else rate)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_rounding_is_right_on_average_and_leaves_what_fits(dtype):
    values = torch.tensor([1.0, -3.25, 1.0 + 2**-12, -1.0 + 2**-13, 1e-5, -3e-7, 0.0, 700.03])
    many = values.repeat(200_000, 1)
    rounded = stochastic_rounding(1)(many, dtype, 0)
    assert rounded.dtype == dtype
    distance = (values.to(dtype).float() - values).abs().max()
    fits = values.to(dtype).float() == values
    assert fits.sum() >= 3
    assert torch.equal(rounded[:, fits].float(), many[:, fits])
    mean = rounded.double().mean(0)
    steps = rounded.float().amax(0) - rounded.float().amin(0)  # of the two neighbours
    assert (steps[~fits] > 0).all()
    assert (mean - values).abs().le(steps.double() * 6 * 0.5 / 200_000**0.5 + 1e-12).all(), (mean - values, steps, distance)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("name", ["AdamW", "SGDNesterov", "AdaFactor", "Lion", "AdamW8bit", "RAdamScheduleFree", "torch.optim.RMSprop"])
def test_a_thousand_small_updates_move_the_weights_as_in_float32(name, dtype):
    """Each update is a small part of the distance between two numbers: rounded to the nearest, nothing would ever move."""

    def moved(kind: torch.dtype) -> float:
        weight = torch.nn.Parameter(torch.ones(64, 80, dtype=kind))
        arguments = {"AdaFactor": ("relative_step=False", "scale_parameter=False")}.get(name)
        options = OptimizerOptions(optimizer_type=name, learning_rate=2e-5, optimizer_args=arguments)
        optimizer = build_optimizer(options, [{"params": [weight], "lr": None, "name": "unet"}], seed=3)
        for _ in range(1000):
            weight.grad = torch.full_like(weight, 0.25)
            optimizer.step()
        assert weight.dtype == kind
        with evaluation_weights(optimizer):
            return float(weight.detach().double().mean()) - 1

    exact = moved(torch.float32)
    assert exact < -1e-4
    assert moved(dtype) == pytest.approx(exact, rel=0.1)


@pytest.mark.filterwarnings("ignore:.*paged.*", "ignore:.*Paged.*")
@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_its_state_to_the_bit(problem, name):
    def start():
        one = problem(torch.bfloat16)
        return one, build_optimizer(options_for(name), one.groups(), seed=5)

    unbroken, optimizer = start()
    unbroken.train(optimizer, range(1, 7))
    first, optimizer = start()
    first.train(optimizer, range(1, 4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second, optimizer = start()
    for new, old in zip(second.weights, first.snapshot(), strict=True):
        new.data.copy_(old)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    second.train(optimizer, range(4, 7))
    assert all(map(torch.equal, second.snapshot(), unbroken.snapshot()))
    assert all(weight.dtype == torch.bfloat16 for weight in second.weights)
    assert not all(map(torch.equal, first.snapshot(), unbroken.snapshot()))


def test_the_seed_decides(problem):
    def weights(seed: int) -> list[torch.Tensor]:
        one = problem(torch.bfloat16)
        one.train(build_optimizer(options_for("AdamW", 1e-4), one.groups(), seed), range(1, 4))
        return one.snapshot()

    assert all(map(torch.equal, weights(1), weights(1)))
    assert not all(map(torch.equal, weights(1), weights(2)))


def test_in_portions_it_is_the_same_but_for_the_rounding(problem, monkeypatch):
    """What one optimizer does with all weights, several do with parts of them."""
    monkeypatch.setattr("library.optim.optimizers._AT_ONCE", 20)
    one = problem(torch.bfloat16)
    optimizer = build_optimizer(options_for("AdamW"), one.groups(text_encoder_lr=1e-3))
    assert [[len(group["params"]) for group in member.param_groups] for member in optimizer.members] == [[1], [2]]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]
    exact = problem()
    for target, source in zip(exact.weights, one.snapshot(), strict=True):
        target.data.copy_(source)
    one.train(optimizer, [1])
    exact.train(build_optimizer(options_for("AdamW"), exact.groups(text_encoder_lr=1e-3)), [1])
    for weight, wanted in zip(one.weights, exact.weights, strict=True):
        assert torch.allclose(weight.float(), wanted, rtol=2**-7, atol=1e-3)
