"""The forward pass of a batch: latents, noise, text, prediction, loss per sample."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from library.data.pixels import in_range
from library.diffusion.draws import Draws
from library.diffusion.training_loss import Corrupted, DiffusionTraining, sample_latents
from library.errors import UserError
from library.families.base import Family
from library.families.encoding import PictureEncoder, not_finite
from library.methods.base import Method
from library.train.preservation import class_batch, preserved, silent_prompt
from library.train.runtime import Runtime
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings


@dataclass
class BatchLoss:
    """Callable: a Batch in, the weighted loss of each of its samples [B] out, that of its class prompt included, times its factor.

    `observe` sees the batch, timesteps and losses [B] of the samples themselves.
    """

    family: Family
    parts: Parts
    diffusion: DiffusionTraining
    runtime: Runtime
    encode_pictures: PictureEncoder
    text: TextSettings
    seed: int
    method: Method
    observe: Callable[[Batch, Tensor, Tensor], None]

    def __call__(self, batch: Batch) -> Tensor:
        draws = Draws(self.seed, batch.place, len(batch.captions))
        latents = sample_latents(self._posterior(batch), draws, self.family.latent_scale)
        corrupted = self.diffusion.corrupt(latents, draws)
        losses = self._losses(batch, corrupted, self._encode_text(batch))
        self.observe(batch, corrupted.timesteps, losses)
        return self._with_class_prompts(losses, batch, corrupted) * batch.loss_factor

    @torch.no_grad()
    def at_fixed_timesteps(self, batch: Batch, seed: int) -> Tensor:
        """Losses [timesteps, B] that depend on the weights, the batch and the seed alone; `observe` does not see them."""
        latents = self._posterior(batch).mean * self.family.latent_scale
        conditioning = self._encode_text(batch)
        losses = []
        for number, timestep in enumerate(self.diffusion.fixed_timesteps()):
            draws = Draws(seed, replace(batch.place, micro_step=number), len(batch.captions))
            losses.append(self._losses(batch, self.diffusion.corrupt(latents, draws, timestep), conditioning))
        return torch.stack(losses)

    def _with_class_prompts(self, losses: Tensor, batch: Batch, corrupted: Corrupted) -> Tensor:
        """The same noisy latents with the prompt of the class: the base model's prediction is to stay."""
        prompts = batch.class_prompts
        if not self._wanted_by_any(prompts is not None):
            return losses
        prompts = prompts or silent_prompt(batch)
        of_class = class_batch(batch, prompts)
        found = self._losses(of_class, corrupted.of_samples(prompts.samples), self._encode_text(of_class))
        return losses.index_add(0, torch.tensor(prompts.samples, device=losses.device), found)

    def _wanted_by_any(self, wanted: bool) -> bool:
        """A pass that has to do with the base model, which only networks leave to be asked: by this process, or by one it must join."""
        return wanted if self.method.base is None else self.runtime.wanted_by_any(wanted)

    def _losses(self, batch: Batch, corrupted: Corrupted, conditioning: Conditioning) -> Tensor:
        prediction = self._predict(batch, corrupted, conditioning)
        device = corrupted.target.device
        marks = preserved(batch)
        if self._wanted_by_any(any(marks)):
            kept = torch.tensor(marks, device=device)[:, None, None, None]
            base = self._base_prediction(batch, corrupted, conditioning)
            corrupted = replace(corrupted, target=torch.where(kept, base, corrupted.target))
        masks = None if batch.masks is None else batch.masks.to(device)
        return self.diffusion.loss(prediction, corrupted, batch.loss_weights.to(device), masks)[1]

    def _predict(self, batch: Batch, corrupted: Corrupted, conditioning: Conditioning) -> Tensor:
        noisy_latents = corrupted.noisy_latents.to(self.runtime.frozen_dtype)
        with self.runtime.autocast():
            return self.family.predict(self.parts, noisy_latents, corrupted.timesteps, conditioning, batch)

    @torch.no_grad()
    def _base_prediction(self, batch: Batch, corrupted: Corrupted, conditioning: Conditioning) -> Tensor:
        """Of the whole batch, although the target of some samples may be another: parts of it would be rounded otherwise."""
        if self.method.base is None:
            raise UserError(
                f"custom_attributes of {batch.image_paths[0]}: diff_output_preservation needs the base model beside what is "
                "trained, which only networks (train_network.py) leave as it is; remove it"
            )
        with self.method.base():
            if self.method.trains_text_encoder:
                conditioning = self._encode_text(batch)
            return self._predict(batch, corrupted, conditioning).float()

    def _posterior(self, batch: Batch) -> Posterior:
        if batch.posterior is not None:
            return Posterior(batch.posterior.mean.to(self.runtime.device), batch.posterior.std.to(self.runtime.device))
        assert batch.images is not None
        posterior = self.encode_pictures(in_range(batch.images.to(self.runtime.device)), batch.image_paths)
        if spoilt := not_finite(posterior, batch.image_paths):
            raise UserError(f"the VAE makes no finite numbers of {', '.join(spoilt)}: use another --vae, or mend or remove them")
        return posterior

    def _encode_text(self, batch: Batch) -> Conditioning:
        if batch.conditioning is not None:
            return batch.conditioning.to(self.runtime.device)
        with self.runtime.autocast(), nullcontext() if self.method.trains_text_encoder else torch.no_grad():
            return self.family.encode_text(self.parts, batch.captions, self.text)
