"""The noisy latents that a model sees and what it is asked to predict."""
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from library.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Objective = Literal["epsilon", "v"]


def noisy_latents(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(ᾱ) x_0 + sqrt(1 - ᾱ) ε: Ho et al. 2020 (arXiv 2006.11239), equation 4. `alpha_bar` is [B]."""
    alpha_bar = _per_sample(alpha_bar)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0: Salimans and Ho 2022 (arXiv 2202.00512), section 4. `alpha_bar` is [B]."""
    alpha_bar = _per_sample(alpha_bar)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents


def target(objective: Objective, latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the model's output is compared with."""
    if objective == "epsilon":
        return noise
    if objective == "v":
        return velocity(latents, noise, alpha_bar)
    raise UserError(f'objective "{objective}" is not known; write "epsilon" or "v"')


def _per_sample(values: Tensor) -> Tensor:
    return values[:, None, None, None]
