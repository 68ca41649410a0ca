"""Objectives, losses, masks and weights against closed forms."""
from __future__ import annotations

import math

import pytest
import torch

from library.config.options import LossOptions
from library.diffusion.loss import element_loss, huber_threshold
from library.diffusion.mask import apply_masks
from library.diffusion.objectives import noisy_latents, target, velocity
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.weighting import debiased_factor, loss_factor, min_snr_factor, noise_like_factor, velocity_like_factor
from library.errors import UserError

SNR = torch.tensor([0.1, 1.0, 5.0, 40.0, 5000.0])


def pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None]


def test_velocity_turns_the_noisy_latents_by_90_degrees():
    alpha_bar = torch.tensor([0.9, 0.04])
    clean, noise = pixel(2.0, 1.0), pixel(3.0, -1.0)
    noisy, v = noisy_latents(clean, noise, alpha_bar), velocity(clean, noise, alpha_bar)
    assert noisy.flatten().tolist() == pytest.approx([2 * 0.9**0.5 + 3 * 0.1**0.5, 0.2 - 0.96**0.5])
    assert v.flatten().tolist() == pytest.approx([3 * 0.9**0.5 - 2 * 0.1**0.5, -0.2 - 0.96**0.5])
    root = alpha_bar[:, None, None, None].sqrt()
    torch.testing.assert_close(root * noisy - (1 - root**2).sqrt() * v, clean)  # x_0 = sqrt(ᾱ) x_t - sqrt(1 - ᾱ) v


def test_targets():
    clean, noise, alpha_bar = pixel(2.0), pixel(3.0), torch.tensor([0.9])
    assert target("epsilon", clean, noise, alpha_bar) is noise
    assert torch.equal(target("v", clean, noise, alpha_bar), velocity(clean, noise, alpha_bar))
    with pytest.raises(UserError, match="epsilon"):
        target("flow", clean, noise, alpha_bar)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("l2", 9.0),
        ("l1", 3.0),
        ("huber", 2 * 0.5 * (math.sqrt(9.25) - 0.5)),
        ("smooth_l1", 2 * (math.sqrt(9.25) - 0.5)),
    ],
)
def test_element_losses(loss_type, expected):
    loss = element_loss(pixel(1.0, 7.0), pixel(4.0, 7.0), loss_type, torch.tensor([0.5, 0.5]))
    assert loss.flatten().tolist() == pytest.approx([expected, 0.0])


def test_huber_tends_to_l2_and_smooth_l1_to_twice_l1():
    prediction, goal = pixel(3.0).double(), pixel(0.0).double()
    assert element_loss(prediction, goal, "huber", torch.tensor([1e5]).double()).item() == pytest.approx(9.0, rel=1e-5)
    assert element_loss(prediction, goal, "smooth_l1", torch.tensor([1e-5]).double()).item() == pytest.approx(6.0, rel=1e-5)


def test_huber_thresholds():
    timesteps, schedule = torch.tensor([0, 500, 999]), scaled_linear_schedule()
    constant = huber_threshold(timesteps, schedule, LossOptions(huber_schedule="constant", huber_c=0.2, huber_scale=3.0))
    assert constant.tolist() == pytest.approx([0.6] * 3)
    exponential = huber_threshold(timesteps, schedule, LossOptions(huber_schedule="exponential", huber_c=0.01, huber_scale=2.0))
    assert exponential.tolist() == pytest.approx([2.0, 2 * 0.1, 2 * 0.01**0.999])
    snr = huber_threshold(timesteps, schedule, LossOptions(huber_schedule="snr", huber_c=0.1, huber_scale=9.0))
    expected = [0.9 / (1 + sigma) ** 2 + 0.1 for sigma in schedule.sigma(timesteps).tolist()]
    assert snr.tolist() == pytest.approx(expected)
    end = huber_threshold(torch.tensor([999]), scaled_linear_schedule(zero_terminal_snr=True), LossOptions())
    assert end.item() == pytest.approx(0.1)


def test_masks_are_averaged_down_and_not_renormalised():
    masks = torch.zeros(2, 16, 16)
    masks[0, :8, :8] = 1
    masks[1, :, 12:] = 0.5
    masked = apply_masks(torch.full((2, 3, 2, 2), 4.0), masks)
    assert masked.shape == (2, 3, 2, 2)
    assert masked[0, 0].tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert masked[1, 2].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert masked[0].mean() == 1.0


def test_min_snr():
    torch.testing.assert_close(min_snr_factor(SNR, 5.0, "epsilon"), torch.tensor([1.0, 1.0, 1.0, 0.125, 0.001]))
    expected = [0.1 / 1.1, 1 / 2, 5 / 6, 5 / 41, 5 / 5001]
    assert min_snr_factor(SNR, 5.0, "v").tolist() == pytest.approx(expected)


def test_other_factors():
    assert noise_like_factor(SNR).tolist() == pytest.approx([0.1 / 1.1, 0.5, 5 / 6, 40 / 41, 1000 / 1001])
    expected = [1 + 0.5 * 11, 1 + 0.5 * 2, 1 + 0.5 * 6 / 5, 1 + 0.5 * 41 / 40, 1 + 0.5 * 1001 / 1000]
    assert velocity_like_factor(SNR, 0.5, 0.004).tolist() == pytest.approx(expected)
    expected = [value**-0.5 for value in (0.1, 1, 5, 40, 1000)]
    assert debiased_factor(SNR, "epsilon", 0.004).tolist() == pytest.approx(expected)
    assert debiased_factor(SNR, "v", 0.004).tolist() == pytest.approx([1 / 1.1, 1 / 2, 1 / 6, 1 / 41, 1 / 1001])


def test_factors_multiply():
    options = LossOptions(min_snr_gamma=2.0, v_pred_like_loss=0.5, debiased_estimation_loss=True)
    product = min_snr_factor(SNR, 2.0, "epsilon") * velocity_like_factor(SNR, 0.5, 0.0) * debiased_factor(SNR, "epsilon", 0.0)
    torch.testing.assert_close(loss_factor(SNR, 0.0, "epsilon", options), product)
    assert loss_factor(SNR, 0.0, "epsilon", LossOptions()).tolist() == [1.0] * 5


@pytest.mark.parametrize("objective", ["epsilon", "v"])
@pytest.mark.parametrize("min_snr_gamma", [None, 5.0])
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("like_the_other", [False, True])
def test_finite_at_zero_terminal_snr(objective, min_snr_gamma, debiased, like_the_other):
    schedule = scaled_linear_schedule(zero_terminal_snr=True)
    options = LossOptions(
        min_snr_gamma=min_snr_gamma,
        debiased_estimation_loss=debiased,
        v_pred_like_loss=1.0 if like_the_other and objective == "epsilon" else None,
        scale_v_pred_loss_like_noise_pred=like_the_other and objective == "v",
    )
    factor = loss_factor(schedule.snr(torch.arange(1000)), schedule.snr_floor, objective, options)
    assert factor.isfinite().all()
    assert factor.max() <= 215 * 15  # what the unmodified schedule has at its end: 1 + 1 / 0.0047, 1 / sqrt(0.0047)


def test_the_floor_changes_nothing_without_zero_terminal_snr():
    schedule = scaled_linear_schedule()
    options = LossOptions(v_pred_like_loss=1.0, debiased_estimation_loss=True)
    snr = schedule.snr(torch.arange(1000))
    assert torch.equal(loss_factor(snr, schedule.snr_floor, "epsilon", options), loss_factor(snr, 0.0, "epsilon", options))
