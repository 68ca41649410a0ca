"""Pictures into latents with a VAE that may overflow in half precision: it is widened to fp32 then, and the pictures are named."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from library.types import Posterior


@dataclass
class PictureEncoder:
    """Callable: pictures [B, 3, H, W] in [-1, 1] and their paths in, what the VAE says of them, unscaled and in fp32, out.

    Where half precision makes no finite numbers, the VAE is fp32 from then on and these pictures are encoded again, so that this
    happens once. What fp32 makes no finite numbers of either is returned as it is: see `not_finite`.
    """

    vae: nn.Module
    encode: Callable[[Tensor], Posterior]
    on_widened: Callable[[list[str], str], None]  # hears the paths of the pictures, and the precision that was too narrow

    @torch.no_grad()
    def __call__(self, pictures: Tensor, paths: Sequence[str]) -> Posterior:
        posterior = self.encode(pictures)
        dtype = next(self.vae.parameters()).dtype
        spoilt = [] if dtype == torch.float32 else not_finite(posterior, paths)
        if not spoilt:
            return posterior
        nn.Module.to(self.vae, torch.float32)
        self.on_widened(spoilt, str(dtype).removeprefix("torch."))
        return self.encode(pictures)


def not_finite(posterior: Posterior, paths: Sequence[str]) -> list[str]:
    """The paths of the pictures of whose latents some are no numbers."""
    finite = (posterior.mean.isfinite() & posterior.std.isfinite()).flatten(1).all(dim=1).tolist()
    return [path for path, is_finite in zip(paths, finite, strict=True) if not is_finite]
