"""The work of the caching tools: the model loaded, the caches filled by all processes together."""

from __future__ import annotations

from library.methods.base_weights import merge_base_weights
from library.train.caching import fill_caches, picture_encoder
from library.train.caching_plan import CachingPlan
from library.train.memory import keep_in_8_bits
from library.train.record import tell
from library.train.runtime import Runtime
from library.train.signals import Stopped, StopRequest
from library.types import Parts


def cache_by_plan(plan: CachingPlan, stop_request: StopRequest) -> int:
    """Encode what is missing; the exit code."""
    training, timeout = plan.settings.training, plan.settings.memory.ddp_timeout
    runtime = Runtime(training.mixed_precision, 0, stop_request, timeout_minutes=timeout)
    try:
        parts = _load(plan, runtime)
        if plan.settings.memory.fp8_base:
            for encoder in parts.text_encoders:
                keep_in_8_bits(encoder)
        fill_caches(plan, parts, runtime, picture_encoder(plan.family, parts, tell))
    except Stopped:
        return stop_request.exit_code or 143
    finally:
        runtime.close()
    return 0


def _load(plan: CachingPlan, runtime: Runtime) -> Parts:
    """The model, with what encodes on the device."""
    data, network, model = plan.settings.data, plan.settings.network, plan.settings.model
    if network.base_weights and data.cache_text_encoder_outputs:  # they may change the text encoder: merged as training does it
        parts = plan.family.load(model, runtime.frozen_dtype, runtime.device)
        merge_base_weights(network, parts)
        return parts
    parts = plan.family.load(model, runtime.frozen_dtype, "cpu")
    for module in [parts.vae] if data.cache_latents else parts.text_encoders:
        module.to(runtime.device)
    return parts
