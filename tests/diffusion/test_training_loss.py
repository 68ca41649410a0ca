"""The composition: what is drawn, in which dtype, and what is refused. The numbers themselves: test_parity.py."""
from __future__ import annotations

import pytest
import torch

from library.config.options import LossOptions, NoiseOptions
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining, sample_latents
from library.errors import UserError
from library.types import Posterior

LATENTS = torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def training():
    def build(objective="epsilon", noise=(), loss=()):
        return DiffusionTraining(scaled_linear_schedule(), objective, NoiseOptions(**dict(noise)), LossOptions(**dict(loss)))

    return build


@pytest.mark.parametrize("noise", [{}, {"noise_offset": 0.1, "ip_noise_gamma": 0.1, "noise_offset_random_strength": True}])
def test_a_sample_does_not_depend_on_its_batch(training, draws, noise):
    whole = training(noise=noise).corrupt(LATENTS, draws(count=4))
    for first in (0, 2):
        part = training(noise=noise).corrupt(LATENTS[first : first + 2], draws(count=2, first_position=first))
        for name in ("noisy_latents", "timesteps", "noise", "target"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[first : first + 2]), name


def test_timesteps_stay_in_their_range(training, draws):
    latents = torch.zeros(200, 4, 1, 1)
    timesteps = training(noise={"min_timestep": 100, "max_timestep": 103}).corrupt(latents, draws(count=200)).timesteps
    assert sorted(timesteps.unique().tolist()) == [100, 101, 102]


@pytest.mark.parametrize(
    "noise, expected",
    [
        ({}, [200, 400, 600, 800]),
        ({"min_timestep": 100, "max_timestep": 203}, [120, 141, 161, 182]),
        ({"min_timestep": 999}, [999, 999, 999, 999]),
    ],
)
def test_fixed_timesteps(training, draws, noise, expected):
    """The interior points of linspace(min, max, 6), rounded down; the noise does not depend on how the timestep came about."""
    diffusion = training(noise=noise)
    assert diffusion.fixed_timesteps() == expected
    drawn, given = diffusion.corrupt(LATENTS, draws()), diffusion.corrupt(LATENTS, draws(), expected[0])
    assert given.timesteps.tolist() == [expected[0]] * 4
    assert torch.equal(drawn.noise, given.noise)


def test_input_perturbation_leaves_the_target_alone(training, draws):
    plain = training().corrupt(LATENTS, draws())
    perturbed = training(noise={"ip_noise_gamma": 0.5}).corrupt(LATENTS, draws())
    assert torch.equal(plain.target, perturbed.target)
    assert not torch.allclose(plain.noisy_latents, perturbed.noisy_latents)


@pytest.mark.parametrize("name", ["noise_offset", "ip_noise_gamma"])
def test_random_strength_is_between_nothing_and_the_whole(training, draws, name):
    """One number per batch: (x - x_plain) is that of full strength times the same factor everywhere."""
    fixed, random = ({name: 0.5}, {name: 0.5, f"{name}_random_strength": True})
    plain, whole, part = (training(noise=noise).corrupt(LATENTS, draws()).noisy_latents for noise in ({}, fixed, random))
    ratio = (part - plain) / (whole - plain)
    assert 0 < ratio.median() < 1
    torch.testing.assert_close(part - plain, ratio.median() * (whole - plain), rtol=1e-3, atol=1e-5)


def test_multires_radii_are_a_function_of_the_step(training, draws):
    options = {"multires_noise_iterations": 4}
    first, again = (training(noise=options).corrupt(LATENTS, draws()).noise for _ in range(2))
    assert torch.equal(first, again)
    assert first.std().item() == pytest.approx(1)


def test_dtypes(training, draws):
    corrupted = training("v").corrupt(LATENTS.half(), draws())
    assert corrupted.noisy_latents.dtype == torch.float16
    assert corrupted.target.dtype == torch.float32
    loss, per_sample = training("v").loss(corrupted.noisy_latents, corrupted, torch.ones(4))
    assert loss.dtype == per_sample.dtype == torch.float32
    assert per_sample.shape == (4,)


def test_loss_weights_count_per_sample(training, draws):
    corrupted = training().corrupt(LATENTS, draws())
    _, plain = training().loss(LATENTS, corrupted, torch.ones(4))
    _, weighted = training().loss(LATENTS, corrupted, torch.tensor([1.0, 0.5, 0.0, 2.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 0.5, 0.0, 2.0]))


@pytest.mark.parametrize(
    ("objective", "loss", "message"),
    [
        ("epsilon", {"scale_v_pred_loss_like_noise_pred": True}, "scale_v_pred_loss_like_noise_pred"),
        ("v", {"v_pred_like_loss": 1.0}, "v_pred_like_loss"),
        ("epsilon", {"loss_type": "huber", "huber_c": 0.0}, "huber_c"),
    ],
)
def test_refused(training, objective, loss, message):
    with pytest.raises(UserError, match=message):
        training(objective, loss=loss)


def test_sampling_of_latents(draws):
    mean, std = torch.full((4, 4, 8, 8), 2.0), torch.full((4, 4, 8, 8), 0.5)
    unit = draws().normal("latents", (4, 8, 8))
    torch.testing.assert_close(sample_latents(Posterior(mean, std), draws(), 0.18215), (2 + 0.5 * unit) * 0.18215)
    torch.testing.assert_close(sample_latents(Posterior(mean, 0 * std), draws(), 0.5), mean / 2)
