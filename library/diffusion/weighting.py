"""How much each timestep counts: factors of the loss per sample, from the signal to noise ratio (SNR).

With zero terminal SNR the SNR becomes 0. Factors that divide by it use the schedule's `snr_floor` instead of anything
smaller: the last SNR of the unmodified schedule, so that no factor is larger than it is without the option.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from library.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from library.config.options import LossOptions
    from library.diffusion.objectives import Objective

HIGHEST_SNR = 1000.0


def min_snr_factor(snr: Tensor, gamma: float, objective: Objective) -> Tensor:
    """Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy" (arXiv 2303.09556), section 3.4.

    min(SNR, γ) / SNR for ε, written so that it is 1 at SNR 0; min(SNR, γ) / (SNR + 1) for v.
    """
    if objective == "epsilon":
        return (gamma / snr).clamp(max=1)
    return snr.clamp(max=gamma) / (snr + 1)


def noise_like_factor(snr: Tensor) -> Tensor:
    """SNR / (SNR + 1): gives the loss of a v-prediction the weights that ε-prediction has (arXiv 2202.00512, section 4)."""
    snr = snr.clamp(max=HIGHEST_SNR)
    return snr / (snr + 1)


def velocity_like_factor(snr: Tensor, strength: float, snr_floor: float) -> Tensor:
    """1 + k (SNR + 1) / SNR: adds k times the loss that a v-prediction would have to that of an ε-prediction."""
    return 1 + strength / noise_like_factor(snr.clamp(min=snr_floor))


def debiased_factor(snr: Tensor, objective: Objective, snr_floor: float) -> Tensor:
    """Yu et al. 2023, "Debias the Training of Diffusion Models" (arXiv 2310.08442): 1 / sqrt(SNR) for ε; 1 / (SNR + 1) for v."""
    snr = snr.clamp(max=HIGHEST_SNR)
    if objective == "epsilon":
        return snr.clamp(min=snr_floor).rsqrt()
    return 1 / (snr + 1)


def loss_factor(snr: Tensor, snr_floor: float, objective: Objective, options: LossOptions) -> Tensor:
    """The product [B] of all factors that the options ask for."""
    factor = torch.ones_like(snr)
    if options.min_snr_gamma:
        factor = factor * min_snr_factor(snr, options.min_snr_gamma, objective)
    if options.scale_v_pred_loss_like_noise_pred:
        factor = factor * noise_like_factor(snr)
    if options.v_pred_like_loss:
        factor = factor * velocity_like_factor(snr, options.v_pred_like_loss, snr_floor)
    if options.debiased_estimation_loss:
        factor = factor * debiased_factor(snr, objective, snr_floor)
    return factor


def check_weighting(objective: Objective, options: LossOptions) -> None:
    """Refuses factors that have no meaning for the objective."""
    if options.scale_v_pred_loss_like_noise_pred and objective != "v":
        raise UserError("scale_v_pred_loss_like_noise_pred is for models that predict v; remove it, or set v_parameterization")
    if options.v_pred_like_loss and objective != "epsilon":
        raise UserError("v_pred_like_loss is for models that predict noise; remove it, or v_parameterization")
