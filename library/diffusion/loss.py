"""The distance between a prediction and its target, element by element."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from library.diffusion.schedule import TIMESTEPS, NoiseSchedule
from library.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from library.config.options import LossOptions

USES_THRESHOLD = ("huber", "smooth_l1")


def element_loss(prediction: Tensor, target: Tensor, loss_type: str, threshold: Tensor | None = None) -> Tensor:
    """Loss of every element, in the shape of the target; `threshold` [B] is the c of the Huber losses."""
    difference = prediction - target
    if loss_type == "l2":
        return difference**2
    if loss_type == "l1":
        return difference.abs()
    if loss_type in USES_THRESHOLD and threshold is not None:
        return _pseudo_huber(difference, threshold[:, None, None, None], loss_type)
    raise UserError(f'loss_type "{loss_type}" is not known; write l2, l1, huber or smooth_l1')


def huber_threshold(timesteps: Tensor, schedule: NoiseSchedule, options: LossOptions) -> Tensor:
    """The c [B] of the Huber losses: Khrapov et al. 2024, "Improving Diffusion Models's Data-Corruption Resistance using
    Scheduled Pseudo-Huber Loss" (arXiv 2403.16728), section 4."""
    c = options.huber_c
    if options.huber_schedule == "constant":
        return torch.full(timesteps.shape, c * options.huber_scale, dtype=torch.float32, device=timesteps.device)
    if options.huber_schedule == "exponential":
        return options.huber_scale * torch.exp(timesteps * (math.log(c) / TIMESTEPS))
    if options.huber_schedule == "snr":
        return (1 - c) / (1 + schedule.sigma(timesteps)) ** 2 + c
    raise UserError(f'huber_schedule "{options.huber_schedule}" is not known; write snr, exponential or constant')


def check_huber(options: LossOptions) -> None:
    """Refuses a threshold that the formulae have no value for."""
    if options.loss_type in USES_THRESHOLD and options.huber_c <= 0:
        raise UserError(f"huber_c = {options.huber_c}: it has to be above 0; 0.1 is usual")


def _pseudo_huber(difference: Tensor, c: Tensor, loss_type: str) -> Tensor:
    """Quadratic near 0, linear from about c on. Scaled so that huber tends to l2 for big c, smooth_l1 to 2 l1 for small c."""
    excess = (difference**2 + c**2).sqrt() - c
    return 2 * c * excess if loss_type == "huber" else 2 * excess
