"""The forward pass of a batch: latents, noise, text, prediction, loss per sample."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from library.diffusion.draws import Draws
from library.diffusion.training_loss import DiffusionTraining, sample_latents
from library.families.base import Family
from library.train.runtime import Runtime
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings


@dataclass
class BatchLoss:
    """Callable: a Batch in, the weighted loss of each of its samples [B] out. `observe` sees the batch, timesteps and losses [B]."""

    family: Family
    parts: Parts
    diffusion: DiffusionTraining
    runtime: Runtime
    text: TextSettings
    seed: int
    trains_text_encoder: bool
    observe: Callable[[Batch, Tensor, Tensor], None]

    def __call__(self, batch: Batch) -> Tensor:
        draws = Draws(self.seed, batch.place, len(batch.captions))
        latents = sample_latents(self._posterior(batch), draws, self.family.latent_scale)
        corrupted = self.diffusion.corrupt(latents, draws)
        with self.runtime.autocast():
            conditioning = self._encode_text(batch)
            prediction = self.family.predict(
                self.parts, corrupted.noisy_latents.to(self.runtime.frozen_dtype), corrupted.timesteps, conditioning, batch
            )
        masks = None if batch.masks is None else batch.masks.to(latents.device)
        losses = self.diffusion.loss(prediction, corrupted, batch.loss_weights.to(latents.device), masks)[1]
        self.observe(batch, corrupted.timesteps, losses)
        return losses

    def _posterior(self, batch: Batch) -> Posterior:
        if batch.posterior is not None:
            return Posterior(batch.posterior.mean.to(self.runtime.device), batch.posterior.std.to(self.runtime.device))
        assert batch.images is not None
        with torch.no_grad():
            return self.family.encode_images(self.parts, batch.images)

    def _encode_text(self, batch: Batch) -> Conditioning:
        with nullcontext() if self.trains_text_encoder else torch.no_grad():
            return self.family.encode_text(self.parts, batch.captions, self.text)
