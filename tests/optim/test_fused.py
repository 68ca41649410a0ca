"""Steps during the backward pass: the same weights as a step after it, few gradients at a time, clipped tensor by tensor."""
from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from library.config.options import OptimizerOptions, SchedulerOptions
from library.errors import UserError
from library.optim.fused import FusedOptimizer
from library.optim.optimizers import build_optimizer, check_optimizer
from library.optim.schedulers import build_scheduler

LAYERS = 8
ADAFACTOR = {"optimizer_type": "AdaFactor", "optimizer_args": ("relative_step=False", "scale_parameter=False")}


def make_model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*[nn.Linear(16, 16) for _ in range(LAYERS)]).to(dtype)


def make_optimizer(model: nn.Module, max_grad_norm: float = 0.0, **changes) -> FusedOptimizer:
    options = OptimizerOptions(**{"learning_rate": 1e-2, "max_grad_norm": max_grad_norm, **changes})
    half = len(list(model.parameters())) // 2
    weights = list(model.parameters())
    groups = [{"params": weights[:half], "lr": 1e-3, "name": "text_encoder"}, {"params": weights[half:], "lr": None, "name": "unet"}]
    return build_optimizer(options, groups)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[int]:
    """The gradients that are there when each one arrives."""
    alive = []
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.register_post_accumulate_grad_hook(lambda _: alive.append(sum(w.grad is not None for w in model.parameters())))
    for step in steps:
        inputs = torch.randn(4, 16, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
        model(inputs).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return alive


KINDS = {
    "backward pass": ({"fused_backward_pass": True}, ADAFACTOR, 1),
    "groups": ({"fused_optimizer_groups": 4}, {"optimizer_type": "AdamW"}, 5),
    "relative step": ({"fused_backward_pass": True}, {"optimizer_type": "AdaFactor"}, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fused_steps_are_those_of_the_plain_optimizer_with_few_gradients(kind):
    fused, options, most = KINDS[kind]
    plain = make_model()
    everything = train(plain, make_optimizer(plain, **options), range(5))
    model = make_model()
    optimizer = make_optimizer(model, **options, **fused)
    alive = train(model, optimizer, range(5))
    assert max(everything) == 2 * LAYERS
    assert max(alive) <= most  # the hook that counts comes after the one that steps
    for name, weight in model.named_parameters():
        assert torch.equal(weight, plain.get_parameter(name)), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_group_goes_on_from_its_state(kind, dtype):
    fused, options, _ = KINDS[kind]
    unbroken = make_model(dtype)
    train(unbroken, make_optimizer(unbroken, **options, **fused), range(6))
    first = make_model(dtype)
    optimizer = make_optimizer(first, **options, **fused)
    train(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = make_model(dtype)
    second.load_state_dict(first.state_dict())
    optimizer = make_optimizer(second, **options, **fused)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    train(second, optimizer, range(3, 6))
    for name, weight in second.named_parameters():
        assert torch.equal(weight, unbroken.get_parameter(name)), name


def test_the_schedule_reaches_every_group_and_names_stay():
    model = make_model()
    optimizer = make_optimizer(model, fused_optimizer_groups=4, optimizer_type="AdamW")
    scheduler = build_scheduler(SchedulerOptions(lr_scheduler="linear"), optimizer, 10)
    train(model, optimizer, range(1))
    scheduler.step(1.0)
    assert len(optimizer.members) == 4
    rates = {(group["name"], round(group["lr"], 9)) for member in optimizer.members for group in member.param_groups}
    assert rates == {("text_encoder", 9e-4), ("unet", 9e-3)}


def test_clipping_is_per_tensor_and_the_norm_is_that_of_all():
    model = make_model()
    weights = list(model.parameters())
    optimizer = make_optimizer(model, max_grad_norm=0.5, fused_optimizer_groups=1, optimizer_type="SGD")
    before = [weight.detach().clone() for weight in weights]
    sum((10 * weight).sum() for weight in weights).backward()
    norms = [10 * weight.numel() ** 0.5 for weight in weights]
    assert optimizer.take_norm() == pytest.approx(sum(norm**2 for norm in norms) ** 0.5)
    optimizer.step()
    rates = [1e-3] * LAYERS + [1e-2] * LAYERS
    for weight, old, rate in zip(weights, before, rates, strict=True):
        assert (weight - old).norm().item() == pytest.approx(0.5 * rate, rel=1e-2)


def test_a_gradient_that_is_no_number_moves_nothing_and_shows():
    model = make_model()
    optimizer = make_optimizer(model, **ADAFACTOR, fused_backward_pass=True)
    before = [weight.detach().clone() for weight in model.parameters()]
    (model(torch.ones(1, 16)).sum() * torch.nan).backward()
    assert not torch.tensor(optimizer.take_norm()).isfinite()
    assert all(map(torch.equal, before, model.parameters()))


def test_weights_that_are_frozen_later_hold_nothing_up():
    model = make_model()
    optimizer = make_optimizer(model, fused_optimizer_groups=1, optimizer_type="AdamW")
    train(model, optimizer, range(1))
    first = model[0].weight
    model[0].requires_grad_(False)
    frozen, moving = first.detach().clone(), model[7].weight.detach().clone()
    train(model, optimizer, range(1, 2))
    assert torch.equal(first, frozen)
    assert not torch.equal(model[7].weight, moving)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fused_backward_pass": True}, 'works with optimizer_type = "AdaFactor" only'),
        ({"fused_optimizer_groups": 4, "optimizer_type": "Prodigy", "learning_rate": 1.0}, "Prodigy looks at all weights together"),
    ],
)
def test_what_cannot_be_is_told(options, message):
    with pytest.raises(UserError, match=message):
        check_optimizer(OptimizerOptions(**options))
