"""Samplers: their noise schedule, and that each one draws the right picture when it is told the truth about the noise."""
from __future__ import annotations

import importlib.util
from inspect import signature

import pytest
import torch

from library.config.options.output import SAMPLERS as NAMES_IN_OPTIONS
from library.diffusion.schedule import scaled_linear_schedule
from library.errors import UserError
from library.sampling.schedulers import SAMPLERS, check_sampler, make_scheduler

HAS_SCIPY = importlib.util.find_spec("scipy") is not None
INSTALLED = [name for name in SAMPLERS if HAS_SCIPY or not name.endswith("lms")]


def test_every_name_of_the_options_is_known():
    assert set(NAMES_IN_OPTIONS) | {"ddpm"} == set(SAMPLERS)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", INSTALLED)
def test_schedule_is_stable_diffusions(name, zero_terminal_snr):
    check_sampler(name, "here")
    for objective, expected in (("v", "v_prediction"), ("epsilon", "epsilon")):
        scheduler = make_scheduler(name, 30, objective, zero_terminal_snr)
        table = scaled_linear_schedule(zero_terminal_snr).alphas_cumprod.float()
        torch.testing.assert_close(scheduler.alphas_cumprod, table, rtol=1e-3, atol=1e-7)
        assert scheduler.config.prediction_type == expected
    assert not scheduler.config.get("clip_sample", False)


LOG_SNR = {zero: scaled_linear_schedule(zero).alphas_cumprod.clamp(min=2**-24).logit() for zero in (False, True)}


def signal_at(timestep, zero_terminal_snr):
    """The picture's share of the variance, between timesteps too (second-order samplers ask there)."""
    log_snr = LOG_SNR[zero_terminal_snr]
    position = min(float(timestep), 999)
    low, high, part = int(position), min(int(position) + 1, 999), position % 1
    return torch.sigmoid(log_snr[low] * (1 - part) + log_snr[high] * part)


DRAWINGS = [
    (name, *drawing)
    for name in INSTALLED
    for drawing in [(20, "epsilon", False), (20, "epsilon", True), (20, "v", False), (20, "v", True), (1000, "v", False)]
    if not name.startswith("k_") and (name, drawing[0]) != ("lms", 1000)  # which integrates 4,000 times, for 10 s
]


@pytest.mark.parametrize(("name", "steps", "objective", "zero_terminal_snr"), DRAWINGS)
def test_a_model_that_knows_the_picture_draws_it(name, steps, objective, zero_terminal_snr):
    """And on the way there the latents hold as much noise as the schedule says, which a wrong schedule or objective cannot do."""
    generator = torch.Generator().manual_seed(3)
    picture = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)
    scheduler = make_scheduler(name, steps, objective, zero_terminal_snr)
    latents = torch.randn(picture.shape, generator=generator, dtype=torch.float64) * scheduler.init_noise_sigma
    draws = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        signal = signal_at(timestep, zero_terminal_snr)
        noise = (model_input - signal.sqrt() * picture) / (1 - signal).sqrt()
        if timestep > 100:
            assert 0.85 < noise.std() < 1.15, (timestep, noise.std())
        told = noise if objective == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * picture
        latents = scheduler.step(told, timestep, latents, **draws).prev_sample
    torch.testing.assert_close(latents, picture, atol=0.25, rtol=0)


@pytest.mark.skipif(not HAS_SCIPY, reason="lms needs scipy")
def test_a_thousand_steps_of_lms_are_the_timesteps():
    assert make_scheduler("lms", 1000, "v").timesteps.tolist() == list(range(999, -1, -1))


def test_zero_terminal_snr_begins_in_pure_noise():
    for name in INSTALLED:
        if name not in ("dpmsingle", "pndm"):
            assert float(make_scheduler(name, 10, "v", True).timesteps[0]) >= 998, name


def test_an_epsilon_model_never_begins_where_there_is_only_noise():
    for name in INSTALLED:
        if name != "dpmsingle":  # diffusers lets nobody choose its timesteps
            assert float(make_scheduler(name, 10, "epsilon", True).timesteps[0]) < 999, name


@pytest.mark.skipif(HAS_SCIPY, reason="tells what is said where scipy is missing")
def test_lms_without_scipy():
    with pytest.raises(UserError, match="needs the package scipy"):
        check_sampler("k_lms", "here")


def test_unknown_sampler():
    with pytest.raises(UserError, match=r'there is no sampler .ddimm.; did you mean "ddim"'):
        check_sampler("ddimm", "here")
