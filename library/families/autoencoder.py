"""What families do with their VAE, which runs in the precision that it was loaded in."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from library.types import Posterior


def encode_images(vae: nn.Module, images: Tensor) -> Posterior:
    """[B, 3, H, W] in [-1, 1] -> what the VAE says, unscaled, in fp32."""
    autoencoder: Any = vae
    weight = next(vae.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        distribution = autoencoder.encode(images.to(weight)).latent_dist
    return Posterior(distribution.mean.float(), distribution.std.float())


def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """Unscaled latents [B, C, h, w] -> images [B, 3, H, W], about -1..1, in fp32.

    Where half precision makes no finite numbers, as that of SDXL in float16, they are decoded in fp32. The VAE is then as it was, so
    that a run that draws pictures encodes as one that does not.
    """
    images = _decode(vae, latents)
    dtype = next(vae.parameters()).dtype
    if dtype == torch.float32 or images.isfinite().all():
        return images
    nn.Module.to(vae, torch.float32)
    try:
        return _decode(vae, latents)
    finally:
        nn.Module.to(vae, dtype)


def _decode(vae: nn.Module, latents: Tensor) -> Tensor:
    autoencoder: Any = vae
    weight = next(vae.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        return autoencoder.decode(latents.to(weight)).sample.float()
