"""The noise schedule against closed forms and against diffusers."""
from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from library.diffusion.schedule import scaled_linear_schedule

LAST = torch.tensor([999])
ALL = torch.arange(1000)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_equals_diffusers(zero_terminal_snr):
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=zero_terminal_snr
    )
    ours = scaled_linear_schedule(zero_terminal_snr).alpha_bar(ALL)
    torch.testing.assert_close(ours[:-1], scheduler.alphas_cumprod[:-1], rtol=1e-3, atol=1e-6)


def test_snr_and_sigma_belong_together():
    schedule = scaled_linear_schedule()
    torch.testing.assert_close(schedule.snr(ALL), schedule.sigma(ALL) ** -2)
    assert schedule.snr(ALL[:1]).item() == pytest.approx((1 - 0.00085) / 0.00085)
    assert schedule.snr(LAST).item() == pytest.approx(schedule.snr_floor)


def test_zero_terminal_snr_ends_in_pure_noise_and_starts_as_before():
    plain, zero = scaled_linear_schedule(), scaled_linear_schedule(zero_terminal_snr=True)
    assert zero.snr(LAST).item() == 0
    assert zero.sigma(LAST).item() == math.inf
    assert zero.alpha_bar(ALL[:1]).item() == pytest.approx(plain.alpha_bar(ALL[:1]).item(), abs=1e-7)
    assert zero.snr_floor == plain.snr_floor
    assert (zero.snr(ALL)[1:] < plain.snr(ALL)[1:]).all()  # the table that weights use is the modified one
