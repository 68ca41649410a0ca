"""From latents to a loss: the parts of this package in the order in which a training step uses them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from library.diffusion import noise as noises
from library.diffusion import objectives
from library.diffusion.loss import USES_THRESHOLD, check_huber, element_loss, huber_threshold
from library.diffusion.mask import apply_masks
from library.diffusion.weighting import check_weighting, loss_factor

if TYPE_CHECKING:
    from torch import Tensor

    from library.config.options import LossOptions, NoiseOptions
    from library.diffusion.draws import Draws
    from library.diffusion.objectives import Objective
    from library.diffusion.schedule import NoiseSchedule
    from library.types import Posterior


@dataclass
class Corrupted:
    """Latents after noise was added, and what the model should say of them."""

    noisy_latents: Tensor  # [B, C, h, w], in the dtype of the latents
    timesteps: Tensor  # [B] int64
    noise: Tensor  # [B, C, h, w] float32
    target: Tensor  # [B, C, h, w] float32

    def of_samples(self, numbers: list[int]) -> Corrupted:
        """Those of the batch with these numbers."""
        return Corrupted(self.noisy_latents[numbers], self.timesteps[numbers], self.noise[numbers], self.target[numbers])


@dataclass(frozen=True)
class DiffusionTraining:
    """What is asked of a model: the schedule, the objective, the kind of noise and the kind of loss."""

    schedule: NoiseSchedule
    objective: Objective
    noise: NoiseOptions
    loss_options: LossOptions

    def __post_init__(self) -> None:
        check_weighting(self.objective, self.loss_options)
        check_huber(self.loss_options)

    def corrupt(self, latents: Tensor, draws: Draws, timestep: int | None = None) -> Corrupted:
        """Draws noise for the scaled latents [B, C, h, w], and timesteps unless one is given, and mixes them."""
        if timestep is None:
            timesteps = draws.integers("timestep", *self._timestep_range()).to(latents.device)
        else:
            timesteps = torch.full((len(latents),), timestep, device=latents.device)
        clean = latents.float()
        noise = self._draw_noise(clean, draws)
        alpha_bar = self.schedule.alpha_bar(timesteps)
        noisy = objectives.noisy_latents(clean, self._perturbed(noise, draws), alpha_bar)
        target = objectives.target(self.objective, clean, noise, alpha_bar)
        return Corrupted(noisy.to(latents.dtype), timesteps, noise, target)

    def fixed_timesteps(self) -> list[int]:
        """Where held-out images are measured."""
        return noises.interior_timesteps(*self._timestep_range())

    def _timestep_range(self) -> tuple[int, int]:
        return noises.timestep_range(self.noise.min_timestep, self.noise.max_timestep)

    def loss(
        self, prediction: Tensor, corrupted: Corrupted, loss_weights: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean over the batch, and the loss of each sample [B]; `loss_weights` is [B], `masks` [B, H, W]."""
        options, timesteps = self.loss_options, corrupted.timesteps
        threshold = huber_threshold(timesteps, self.schedule, options) if options.loss_type in USES_THRESHOLD else None
        elements = element_loss(prediction.float(), corrupted.target, options.loss_type, threshold)
        if masks is not None:
            elements = apply_masks(elements, masks)
        factor = loss_factor(self.schedule.snr(timesteps), self.schedule.snr_floor, self.objective, options)
        per_sample = elements.mean(dim=(1, 2, 3)) * loss_weights.to(elements) * factor
        return per_sample.mean(), per_sample

    def _draw_noise(self, latents: Tensor, draws: Draws) -> Tensor:
        options = self.noise
        noise = draws.normal("noise", latents.shape[1:]).to(latents.device)
        if options.noise_offset:
            offset_noise = draws.normal("noise_offset", (latents.shape[1], 1, 1)).to(latents.device)
            noise = noises.add_noise_offset(noise, offset_noise, self._offset_strength(latents, draws))
        if options.multires_noise_iterations:
            octaves = [octave.to(latents.device) for octave in self._draw_octaves(latents, draws)]
            noise = noises.add_multires_noise(noise, octaves, options.multires_noise_discount)
        return noise

    def _offset_strength(self, latents: Tensor, draws: Draws) -> float | Tensor:
        strength = self.noise.noise_offset or 0.0
        if self.noise.noise_offset_random_strength:
            strength *= draws.batch_random("noise_offset_strength").random()
        if self.noise.adaptive_noise_scale:
            return noises.adaptive_offset_strength(latents, strength, self.noise.adaptive_noise_scale)
        return strength

    def _draw_octaves(self, latents: Tensor, draws: Draws) -> list[Tensor]:
        channels, height, width = latents.shape[1:]
        random = draws.batch_random("multires_radius")
        radii = [random.uniform(2, 4) for _ in range(self.noise.multires_noise_iterations or 0)]
        sizes = noises.octave_sizes(height, width, radii)
        return [draws.normal(f"multires_{i}", (channels, *size)) for i, size in enumerate(sizes)]

    def _perturbed(self, noise: Tensor, draws: Draws) -> Tensor:
        gamma = self.noise.ip_noise_gamma
        if not gamma:
            return noise
        if self.noise.ip_noise_gamma_random_strength:
            gamma *= draws.batch_random("ip_noise_gamma_strength").random()
        return noises.perturb_input(noise, draws.normal("ip_noise", noise.shape[1:]).to(noise.device), gamma)


def sample_latents(posterior: Posterior, draws: Draws, latent_scale: float) -> Tensor:
    """Latents [B, C, h, w] drawn from what the VAE says, in the scale that the denoiser is used to."""
    mean = posterior.mean
    unit = draws.normal("latents", mean.shape[1:]).to(mean.device, torch.float32)
    return (mean.float() + posterior.std.float() * unit) * latent_scale
