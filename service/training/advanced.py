"""Options of the trainer that a request may set by their own names: those of this list, and no other.

None of them imports a module, names a place, holds a token, or is what an input of a service stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from library.config.declare import Option
from library.config.settings import options_for
from library.config.spelling import did_you_mean
from library.config.values import value_from_file
from service.training.fields import BadInput, FieldProblem

PREFIX = "advanced"
FULL_SCRIPT, NETWORK_SCRIPT = "train_db.py", "train_network.py"
SCRIPT_OF = {"dreambooth": FULL_SCRIPT, "lora": NETWORK_SCRIPT}
ADVANCED = (
    # pictures and captions
    "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_no_upscale", "resize_interpolation", "flip_aug", "color_aug",
    "alpha_mask", "shuffle_caption", "keep_tokens", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
    # text
    "clip_skip", "max_token_length", "weighted_captions",
    # noise and loss
    "noise_offset", "noise_offset_random_strength", "adaptive_noise_scale", "multires_noise_iterations", "multires_noise_discount",
    "ip_noise_gamma", "ip_noise_gamma_random_strength", "zero_terminal_snr", "min_timestep", "max_timestep", "loss_type", "huber_schedule",
    "huber_c", "huber_scale", "min_snr_gamma", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss", "debiased_estimation_loss",
    # the network
    "network_dim", "network_alpha", "network_dropout", "scale_weight_norms",
    # precision, averages
    "no_half_vae", "ema", "ema_decay", "ema_samples",
)  # fmt: skip


def advanced_options(method: str) -> dict[str, Option]:
    """Those that the script of this method takes, as they are declared: for forms."""
    known = options_for(SCRIPT_OF[method])
    return {name: known[name] for name in ADVANCED if name in known}


def read_advanced(written: object, method: str) -> dict[str, Any]:
    """The values of these options; BadInput names each mistake "advanced.noise_offset". Null counts as left out."""
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise BadInput([FieldProblem(PREFIX, "this is a table of options and values, such as {noise_offset: 0.05}")])
    options, values, problems = advanced_options(method), {}, []
    for name, value in written.items():
        if value is None:
            continue
        try:
            if name not in options:
                raise ValueError(f"there is no such option for a request{did_you_mean(str(name)[:60], options)}")
            if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 2**63):
                raise ValueError("this number is too large")
            values[str(name)] = value_from_file(options[name], value)
        except (ValueError, OverflowError) as error:
            problems.append(FieldProblem(f"{PREFIX}.{str(name)[:60]}", str(error)[:400]))
    if problems:
        raise BadInput(problems)
    return values
