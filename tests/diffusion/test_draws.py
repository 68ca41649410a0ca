"""Draws depend on the seed, the step and the position of a sample, and on nothing else."""
from __future__ import annotations

import pytest
import torch


def test_a_sample_does_not_depend_on_its_batch(draws):
    whole = draws(count=4)
    first, second = draws(count=2), draws(count=2, first_position=2)
    for name in ("noise", "latents"):
        split = torch.cat([first.normal(name, (4, 3, 5)), second.normal(name, (4, 3, 5))])
        assert torch.equal(whole.normal(name, (4, 3, 5)), split)
    assert torch.equal(whole.integers("t", 0, 1000), torch.cat([d.integers("t", 0, 1000) for d in (first, second)]))


@pytest.mark.parametrize("change", [{"seed": 8}, {"step": 2}, {"micro_step": 1}, {"first_position": 4}])
def test_everything_else_gives_other_numbers(draws, change):
    assert not torch.isclose(draws().normal("noise", (64,)), draws(**change).normal("noise", (64,))).any()


def test_samples_and_names_are_independent(draws):
    noise = draws().normal("noise", (64,))
    assert not torch.isclose(noise[0], noise[1]).any()
    assert not torch.isclose(noise, draws().normal("ip_noise", (64,))).any()


def test_scalars_of_a_batch_are_the_same_for_all_positions(draws):
    assert draws().batch_random("r").random() == draws(first_position=4).batch_random("r").random()
    assert draws().batch_random("r").random() != draws(micro_step=1).batch_random("r").random()


def test_the_global_generator_is_left_alone(draws):
    before = torch.get_rng_state()
    draws().normal("noise", (8,))
    draws().integers("t", 0, 10)
    assert torch.equal(before, torch.get_rng_state())


def test_normal_is_normal(draws):
    numbers = draws(count=100).normal("noise", (4, 16, 16))
    assert numbers.dtype == torch.float32
    assert numbers.mean().abs() < 0.02
    assert (numbers.std() - 1).abs() < 0.02


def test_integers_are_uniform_in_a_half_open_range(draws):
    numbers = draws(count=4000).integers("t", 10, 14)
    counts = torch.bincount(numbers)
    assert counts[:10].sum() == 0
    assert len(counts) == 14
    assert (counts[10:] - 1000).abs().max() < 150
