"""One process of a run: what it draws, what it sends to the others, and what comes back."""

from __future__ import annotations

import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from library.config.options import OptimizerOptions
from library.errors import UserError
from library.optim.optimizers import build_optimizer
from library.train.runtime import Runtime
from library.train.sharing import buckets
from library.train.signals import Stopped, StopRequest
from library.types import BatchPlace

PLACE = BatchPlace(epoch=1, step=3, micro_step=0, samples=(), first_position=0, ends_step=True, ends_epoch=False, share=1.0)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime("no", seed=1, stop_request=StopRequest())


def test_generators_apart_leave_no_trace(runtime):
    runtime.seed_global_generators(PLACE)
    expected = [drawn() for _ in range(2)]
    inside = []
    for _ in range(2):
        runtime.seed_global_generators(PLACE)
        first = drawn()
        with pytest.raises(ValueError, match="on the way"), runtime.generators_apart(5):
            inside.append(drawn())
            raise ValueError("on the way")
        assert [first, drawn()] == expected
    assert inside[0] == inside[1] not in expected


class Others:
    """A second process that sends the same gradients times `factor`; its batch touched what `touched` says."""

    def __init__(self, factor: float, touched: list[float]):
        self.factor = factor
        self.touched = torch.tensor(touched)
        self.messages: list[torch.Tensor] = []

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.messages.append(tensor.clone())
        tensor += self.factor * tensor if len(self.messages) > 1 else self.touched


@pytest.fixture
def two(runtime, monkeypatch) -> Others:
    others = Others(3.0, [1.0, 0.0, 1.0, 0.0])
    runtime.sharing.world_size = 2
    monkeypatch.setattr(torch.distributed, "all_reduce", others.all_reduce)
    return others


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())


def test_global_generators_are_a_function_of_the_place(runtime, monkeypatch):
    runtime.seed_global_generators(PLACE)
    first = drawn()
    runtime.seed_global_generators(PLACE)
    assert drawn() == first
    draws = {first}
    for other in (replace(PLACE, step=4), replace(PLACE, micro_step=1)):
        runtime.seed_global_generators(other)
        draws.add(drawn())
    runtime.seed = 2
    runtime.seed_global_generators(PLACE)
    draws.add(drawn())
    runtime.seed = 1
    monkeypatch.setattr(Runtime, "rank", 1)
    runtime.seed_global_generators(PLACE)
    draws.add(drawn())
    assert len(draws) == 5


def test_one_process_sends_nothing(runtime):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    runtime.average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]


def test_gradients_are_the_mean_over_the_processes(runtime, two):
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((2,), (1, 3), (), (5,))]
    for index, parameter in enumerate(parameters[:2], start=1):
        parameter.grad = torch.full_like(parameter, float(index))
    runtime.average_gradients(parameters)
    *shared, untouched = parameters  # the third was touched by the other process only
    assert [parameter.grad.unique().tolist() for parameter in shared] == [[2.0], [4.0], [0.0]]  # (1 + 3) / 2 of its own
    assert [parameter.grad.shape for parameter in shared] == [parameter.shape for parameter in shared]
    assert untouched.grad is None  # an optimizer would move it by its momentum and decay
    assert [message.numel() for message in two.messages] == [4, 6]


def test_messages_are_of_one_type_and_bounded():
    gradients = [
        torch.zeros(count, dtype=dtype) for count, dtype in ((4, torch.float32), (5, torch.float32), (3, torch.bfloat16))
    ]
    gradients += [torch.zeros(20, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)]
    sizes = [[gradient.numel() for gradient in bucket] for bucket in buckets(gradients, most=9)]
    assert sizes == [[4, 5], [3], [20], [1]]
    assert list(buckets([])) == []


def test_the_loss_is_the_mean_over_samples(runtime):
    assert runtime.agree([torch.tensor([1.0, 2.0]), torch.tensor([6.0])]) == (3.0, False)
    runtime.stop_request.ask(signal.SIGTERM)
    assert runtime.agree([torch.tensor([1.0])]) == (1.0, True)


def test_processes_agree_on_loss_and_stop(runtime, monkeypatch):
    monkeypatch.setattr(Runtime, "world_size", 2)
    other = torch.tensor([8.0, 2.0, 1.0], dtype=torch.float64)  # the sum of two losses, and a wish to stop
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda facts: facts.add_(other.to(facts.dtype)))
    assert runtime.agree([torch.tensor([1.0])]) == (3.0, True)
    assert runtime.agree([]) == (4.0, True)  # this process had nothing but a filler copy


@pytest.mark.parametrize("max_norm, after", [(0.0, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_clipping_to_a_joint_norm(runtime, max_norm, after):
    parameters = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    for parameter, value in zip(parameters, (3.0, -4.0), strict=True):
        parameter.grad = torch.tensor(value)
    assert runtime.clip_gradients(parameters, max_norm) == pytest.approx(5.0)
    assert torch.stack([parameter.grad for parameter in parameters]).norm().item() == pytest.approx(after, rel=1e-4)


def test_failing_together_alone(runtime):
    with runtime.failing_together():
        pass
    with pytest.raises(UserError, match="no such picture"), runtime.failing_together():
        raise UserError("no such picture")
    runtime.stop_request.ask(signal.SIGTERM)
    with pytest.raises(Stopped), runtime.failing_together():
        runtime.stop_request.check()
    with pytest.raises(Stopped), runtime.failing_together():
        pass  # nobody looked, but the wish is there


def test_failing_together_with_another(runtime, monkeypatch):
    others_part: tuple[tuple[str, ...], bool]

    def all_gather_object(everybodys: list, own: object) -> None:
        everybodys[:] = [own, others_part]

    monkeypatch.setattr(Runtime, "world_size", 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    others_part = (("bad picture",), False)
    with pytest.raises(UserError) as raised, runtime.failing_together():
        raise UserError("bad picture", "another")
    assert raised.value.messages == ("bad picture", "another")
    with pytest.raises(UserError, match="bad picture"), runtime.failing_together():
        pass
    others_part = ((), True)
    with pytest.raises(Stopped), runtime.failing_together():
        pass
    others_part = ((), False)
    with runtime.failing_together():
        pass


def test_what_processes_found_is_merged(runtime, monkeypatch):
    assert runtime.merged({"a": 1}) == {"a": 1}

    def all_gather_object(everybodys: list, own: object) -> None:
        everybodys[:] = [own, {"b": 2}]

    monkeypatch.setattr(Runtime, "world_size", 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    assert runtime.merged({"a": 1}) == {"a": 1, "b": 2}


def test_an_optimizer_that_steps_in_the_backward_pass_tells_the_norm(runtime):
    weight = torch.nn.Parameter(torch.zeros(2))
    options = OptimizerOptions(optimizer_type="SGD", learning_rate=1.0, fused_optimizer_groups=1)
    groups = [{"params": [weight], "lr": None, "name": "unet"}]
    runtime.sharing.begin(build_optimizer(options, groups), {}, torch.nn.Identity())
    runtime.backward((weight * torch.tensor([3.0, 4.0])).sum(), PLACE)
    assert weight.grad is None
    assert weight.norm().item() == pytest.approx(1.0)  # max_grad_norm
    assert runtime.clip_gradients([weight], 1.0) == pytest.approx(5.0)


def test_a_filler_copy_has_no_gradient(runtime):
    weight = torch.nn.Parameter(torch.ones(()))
    runtime.backward(weight * 2, replace(PLACE, share=0.0))
    assert weight.grad is None
    runtime.backward(weight * 2, replace(PLACE, share=0.25))
    assert weight.grad.item() == 0.5


def test_a_loss_scaler_is_there_before_the_first_real_batch(runtime, monkeypatch):
    """A process has filler copies alone, where there are fewer batches than processes."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    monkeypatch.setattr(runtime.accelerator, "scaler", scaler)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    stepped = runtime.sharing.begin(optimizer, {}, torch.nn.Identity())
    runtime.backward(weight.sum(), replace(PLACE, share=0.0))
    weight.grad = torch.full((2,), 4.0)  # scaled, from another process
    scaler.unscale_(optimizer)
    stepped.step()
    assert weight.tolist() == [0.5, 0.5]
