"""The samplers by name: diffusers' scheduler classes, set to the noise schedule of Stable Diffusion."""
from __future__ import annotations

import importlib.util
from inspect import signature
from typing import Any, Literal

from library.config.spelling import did_you_mean
from library.errors import UserError

# Name -> class in diffusers, and what is set besides the noise schedule.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmsingle": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
}
SAMPLERS |= {f"k_{name}": SAMPLERS[name] for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")}

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
SMALLEST_SIGNAL = 2.0**-24  # diffusers' own stand-in for an alpha of 0, whose noise would be infinite


def check_sampler(name: str, where: str) -> None:
    """UserError, at `where`, for a sampler that there is not, or that this installation cannot run."""
    if name not in SAMPLERS:
        raise UserError(f"{where}: there is no sampler {name!r}{did_you_mean(name, SAMPLERS)} (there are {', '.join(SAMPLERS)})")
    if name.endswith("lms") and importlib.util.find_spec("scipy") is None:
        raise UserError(f"{where}: the sampler {name} needs the package scipy (pip install scipy); euler needs nothing more")


def make_scheduler(name: str, steps: int, objective: Literal["epsilon", "v"], zero_terminal_snr: bool = False) -> Any:
    """A diffusers scheduler that is ready for `steps` steps, on the schedule that the model was trained on."""
    import diffusers

    class_name, special = SAMPLERS[name]
    scheduler_class = getattr(diffusers, class_name)
    known = signature(scheduler_class.__init__).parameters
    settings = special | {
        "num_train_timesteps": TRAINING_STEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction" if objective == "v" else "epsilon",
        "steps_offset": 1,
    }
    if zero_terminal_snr and objective == "v" and "rescale_betas_zero_snr" in known:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    elif zero_terminal_snr:
        settings["trained_betas"] = _rescaled_betas()
        if objective == "epsilon":  # where all is noise, knowing the noise says nothing of the picture: begin before that
            settings["timestep_spacing"] = "leading"
    if steps == TRAINING_STEPS:  # every timestep once; the other spacings go beyond the last, or name some twice
        settings["timestep_spacing"] = "trailing"
    scheduler = scheduler_class(**{key: value for key, value in settings.items() if key in known})
    scheduler.set_timesteps(steps)
    return scheduler


def _rescaled_betas() -> list[float]:
    """The training schedule with zero terminal SNR, but for a last signal just above zero."""
    from library.diffusion.schedule import scaled_linear_schedule

    signal = scaled_linear_schedule(zero_terminal_snr=True).alphas_cumprod.tolist()
    signal[-1] = SMALLEST_SIGNAL
    return [1 - after / before for before, after in zip([1.0, *signal[:-1]], signal, strict=True)]
