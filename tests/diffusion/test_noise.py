"""Each kind of noise against its closed form."""
from __future__ import annotations

import pytest
import torch

from library.diffusion.noise import (
    adaptive_offset_strength,
    add_multires_noise,
    add_noise_offset,
    octave_sizes,
    perturb_input,
    timestep_range,
)
from library.errors import UserError

ONES = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (None, None, (0, 1000)),
        (200, None, (200, 1000)),
        (None, 300, (0, 300)),
        (500, 500, (500, 501)),
        (600, 300, (300, 301)),
        (1000, 1000, (999, 1000)),
    ],
)
def test_timestep_range(low, high, expected):
    assert timestep_range(low, high) == expected


@pytest.mark.parametrize(("low", "high", "name"), [(-1, None, "min_timestep"), (None, 1001, "max_timestep")])
def test_timesteps_that_do_not_exist(low, high, name):
    with pytest.raises(UserError, match=name):
        timestep_range(low, high)


def test_noise_offset_moves_whole_channels():
    offset = torch.arange(6.0).reshape(2, 3, 1, 1)
    moved = add_noise_offset(ONES, offset, 0.1)
    for sample in range(2):
        for channel in range(3):
            assert moved[sample, channel].unique().item() == pytest.approx(1 + 0.1 * (3 * sample + channel))


def test_adaptive_strength_follows_the_channel_mean():
    latents = torch.tensor([[-2.0, 0.5], [0.0, 4.0]])[:, :, None, None].expand(2, 2, 4, 4)
    strength = adaptive_offset_strength(latents, 0.1, 0.05)
    torch.testing.assert_close(strength.flatten(), torch.tensor([0.2, 0.125, 0.1, 0.3]))
    assert adaptive_offset_strength(latents, 0.1, -0.05).flatten().tolist() == pytest.approx([0.0, 0.075, 0.1, 0.0])


def test_octaves_start_at_full_size_and_end_at_a_side_of_1():
    assert octave_sizes(64, 48, [2.0] * 10) == [(64, 48), (32, 24), (16, 12), (8, 6), (4, 3), (2, 1)]
    assert octave_sizes(64, 64, [2.0, 3.0]) == [(64, 64), (21, 21)]
    assert octave_sizes(8, 64, [2.0, 4.0, 3.5]) == [(8, 64), (2, 16), (1, 5)]  # one below 1 counts as 1


def test_multires_noise_is_a_weighted_sum_with_unit_variance():
    noise, octave = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    flat = torch.full((2, 3, 1, 1), 5.0)
    result = add_multires_noise(noise, [octave, flat], discount=0.3)
    total = noise + octave + 0.3 * 5
    torch.testing.assert_close(result, total / total.std())
    assert result.std().item() == pytest.approx(1, abs=1e-6)


def test_perturbation():
    torch.testing.assert_close(perturb_input(ONES, 2 * ONES, 0.1), 1.2 * ONES)
