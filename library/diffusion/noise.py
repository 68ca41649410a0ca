"""Noise that is added to latents, and the variants of it."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from library.diffusion.schedule import TIMESTEPS
from library.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


def timestep_range(min_timestep: int | None, max_timestep: int | None) -> tuple[int, int]:
    """The half-open range [low, high) that timesteps are drawn from; never empty.

    Where the minimum is not below the maximum every timestep is the maximum (or the last one, 999).
    """
    low = 0 if min_timestep is None else min_timestep
    high = TIMESTEPS if max_timestep is None else max_timestep
    for name, value in (("min_timestep", low), ("max_timestep", high)):
        if not 0 <= value <= TIMESTEPS:
            raise UserError(f"{name} = {value}: there are timesteps 0 to {TIMESTEPS - 1}; write a number from 0 to {TIMESTEPS}")
    if low >= high:
        last = min(high, TIMESTEPS - 1)
        return last, last + 1
    return low, high


def interior_timesteps(low: int, high: int) -> list[int]:
    """The four points that cut the range [low, high) into five equal parts, rounded down: 200, 400, 600, 800 of all."""
    return [low + (high - low) * part // 5 for part in range(1, 5)]


def add_noise_offset(noise: Tensor, offset_noise: Tensor, strength: float | Tensor) -> Tensor:
    """Guttenberg 2023, "Diffusion with Offset Noise" (crosslabs.org/blog/diffusion-with-offset-noise).

    `offset_noise` [B, C, 1, 1] moves whole channels, so that the model learns to change the mean brightness of a picture;
    `strength` is a number, or [B, C, 1, 1].
    """
    return noise + strength * offset_noise


def adaptive_offset_strength(latents: Tensor, noise_offset: float, adaptive_noise_scale: float) -> Tensor:
    """An offset strength [B, C, 1, 1] that follows the mean of each channel of the (scaled) latents, never negative."""
    channel_mean = latents.mean(dim=(2, 3), keepdim=True).abs()
    return (noise_offset + adaptive_noise_scale * channel_mean).clamp(min=0)


def octave_sizes(height: int, width: int, radii: Iterable[float]) -> list[tuple[int, int]]:
    """Sizes (height, width) of the octaves of multi-resolution noise: divided by r^i, up to the first with a side of 1.

    The first octave (i = 0) has the full size.
    """
    sizes = []
    for i, radius in enumerate(radii):
        size = max(1, int(height / radius**i)), max(1, int(width / radius**i))
        sizes.append(size)
        if 1 in size:
            break
    return sizes


def add_multires_noise(noise: Tensor, octaves: Sequence[Tensor], discount: float) -> Tensor:
    """Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training" (wandb.ai/johnowhitaker/multires_noise).

    Octave i [B, C, h_i, w_i] is stretched to the size of the noise and added with weight discount^i; the sum is divided
    by its (unbiased) standard deviation over the whole batch.
    """
    for i, octave in enumerate(octaves):
        noise = noise + discount**i * F.interpolate(octave, size=noise.shape[-2:], mode="bilinear")
    return noise / noise.std()


def perturb_input(noise: Tensor, perturbation: Tensor, gamma: float) -> Tensor:
    """Ning et al. 2023, "Input Perturbation Reduces Exposure Bias in Diffusion Models" (arXiv 2301.11706).

    Noise for the model's input only: the target keeps the unperturbed noise.
    """
    return noise + gamma * perturbation
