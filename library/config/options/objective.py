"""Options about what is learned: noise and loss."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """The noise that is added to the pictures, and the timesteps at which it is added."""

    noise_offset: float | None = option(
        None, "Shift the noise of each channel by up to this much; 0.1 helps dark and bright pictures.", least=0
    )
    noise_offset_random_strength: bool = option(False, "Draw the noise offset between 0 and noise_offset for each batch.")
    adaptive_noise_scale: float | None = option(
        None, "Add this times the mean of each latent channel to the noise offset. Needs noise_offset."
    )
    multires_noise_iterations: int | None = option(None, "Add noise of this many coarser resolutions: 6 to 10; 0 is none.", least=0)
    multires_noise_discount: float = option(0.3, "Strength of each coarser resolution relative to the one before.", least=0)
    ip_noise_gamma: float | None = option(
        None, "Disturb the model's input, not its target, by this much more noise; 0.1 is usual.", least=0
    )
    ip_noise_gamma_random_strength: bool = option(False, "Draw that strength between 0 and ip_noise_gamma for each batch.")
    zero_terminal_snr: bool = option(False, "Change the noise schedule so that its last step is pure noise. Meant for v models.")
    min_timestep: int | None = option(None, "Train timesteps from this one on; left out: 0.", least=0, most=999)
    max_timestep: int | None = option(None, "Train timesteps below this one; left out: 1000.", least=1, most=1000)


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """How the difference between prediction and target is measured and weighted."""

    loss_type: str = option("l2", "How the prediction's error is measured.", choices=("l1", "l2", "huber", "smooth_l1"))
    huber_schedule: str = option(
        "snr",
        "How the huber parameter depends on the timestep (huber and smooth_l1).",
        choices=("constant", "exponential", "snr"),
    )
    huber_c: float = option(0.1, "The huber parameter: errors above it count linearly (huber and smooth_l1).", least=0)
    huber_scale: float = option(1.0, "Factor of the huber parameter (schedules constant and exponential).", least=0)
    min_snr_gamma: float | None = option(None, "Limit the weight of timesteps with little noise (Min-SNR); 5 is usual.", least=0)
    scale_v_pred_loss_like_noise_pred: bool = option(False, "Weight the loss of v models as that of noise-predicting models.")
    v_pred_like_loss: float | None = option(None, "Add this times a loss that is weighted as in v models.", least=0)
    debiased_estimation_loss: bool = option(False, "Weight timesteps by the debiased estimation method.")
