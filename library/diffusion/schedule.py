"""The noise schedule of Stable Diffusion and what follows from it at each timestep."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the picture is left at each timestep.

    The table is in float64 on the CPU. Each lookup is computed there and rounded once, to float32 on the device of
    the timesteps.
    """

    alphas_cumprod: Tensor  # [1000] float64: share of the picture in the variance, ᾱ
    snr_floor: float  # below this no loss weight divides by the SNR, see weighting.py

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """ᾱ at the timesteps [B]."""
        return _lookup(self.alphas_cumprod, timesteps)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal to noise ratio ᾱ / (1 - ᾱ) at the timesteps [B]; 0 at the end of a schedule with zero terminal SNR."""
        return _lookup(self.alphas_cumprod / (1 - self.alphas_cumprod), timesteps)

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Noise per unit of signal, sqrt((1 - ᾱ) / ᾱ), at the timesteps [B]; infinite where the SNR is 0."""
        return _lookup(((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt(), timesteps)


def scaled_linear_schedule(zero_terminal_snr: bool = False) -> NoiseSchedule:
    """The schedule that Stable Diffusion 1, 2 and XL were trained with: betas linear in their square root."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    alphas_cumprod = (1 - betas).cumprod(0)
    snr_floor = float(alphas_cumprod[-1] / (1 - alphas_cumprod[-1]))
    if zero_terminal_snr:
        alphas_cumprod = rescale_to_zero_terminal_snr(alphas_cumprod)
    return NoiseSchedule(alphas_cumprod, snr_floor)


def rescale_to_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1 (arXiv 2305.08891).

    sqrt(ᾱ) is shifted so that its last value is 0, then stretched so that its first value stays.
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)) ** 2


def _lookup(table: Tensor, timesteps: Tensor) -> Tensor:
    return table.to(torch.float32).to(timesteps.device)[timesteps]
