"""How `accelerate launch` and the options want a training to be shared over processes, checked before a model is loaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from library.config.load import Settings
from library.errors import UserError

USE_FSDP, USE_DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
RESHARDING = {"true": True, "false": False, "FULL_SHARD": True, "1": True, "SHARD_GRAD_OP": False, "2": False}
OF_THE_PLUGIN = (  # options that are fields of accelerate's DeepSpeedPlugin
    "zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path", "offload_param_device", "offload_param_nvme_path",
    "zero3_init_flag", "zero3_save_16bit_model",
)  # fmt: skip
NEVER_IN_PARTS = ("fp8_base", "fp8_base_unet", "torch_compile")
NEVER_TRAINED_IN_PARTS = ("full_fp16", "full_bf16", "fused_backward_pass", "fused_optimizer_groups")
FSDP, DEEPSPEED = "FSDP", "DeepSpeed"


@dataclass(frozen=True)
class FSDPSettings:
    """What the answers of `accelerate config` say of FSDP, whichever version of it they name."""

    reshard_after_forward: bool = True  # parts are given back between the forward and the backward pass
    class_names: tuple[str, ...] = ()  # of the modules that are gathered one at a time
    least_parameters: int | None = None  # instead: modules of at least this size; neither: the blocks of the U-Net


@dataclass(frozen=True)
class SharingPlan:
    """How the processes share the training."""

    kind: Literal["whole", "fsdp", "deepspeed"] = "whole"  # whole: each has all of the model
    fsdp: FSDPSettings = FSDPSettings()
    deepspeed: Mapping[str, Any] = field(default_factory=dict)  # by the fields of accelerate's DeepSpeedPlugin
    max_grad_norm: float = 0.0
    writes_model: bool = False  # the files that are saved hold the U-Net
    notes: tuple[str, ...] = ()


WHOLE = SharingPlan()


def plan_sharing(settings: Settings, world_size: int, environment: Mapping[str, str] = os.environ) -> SharingPlan:
    """UserError with everything that cannot go together."""
    if settings.sharing.deepspeed or _is_on(environment, USE_DEEPSPEED):
        return _plan_deepspeed(settings, world_size, environment)
    if not _is_on(environment, USE_FSDP):
        return WHOLE
    if world_size == 1:
        return SharingPlan(notes=("there is one process: FSDP has nothing to share",))
    fsdp, mistakes = _read_fsdp(environment)
    is_full = settings.script.method == "full"
    mistakes += _misfits(settings, FSDP, trains_in_parts=is_full, averages_in_parts=is_full)
    if mistakes:
        raise UserError(*mistakes)
    return SharingPlan("fsdp", fsdp, writes_model=is_full)


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() == "true"


def _read_fsdp(environment: Mapping[str, str]) -> tuple[FSDPSettings, list[str]]:
    """From the variables that `accelerate launch` sets."""
    mistakes = []
    is_second = environment.get("FSDP_VERSION", "1") == "2"
    name = "reshard_after_forward" if is_second else "sharding_strategy"
    written = environment.get(f"FSDP_{name.upper()}", "true" if is_second else "FULL_SHARD")
    if written not in RESHARDING:
        mistakes.append(f"fsdp_{name}: {written} is not supported; write {'true or false' if is_second else 'FULL_SHARD or SHARD_GRAD_OP'}")
    if _is_on(environment, "FSDP_OFFLOAD_PARAMS"):
        mistakes.append("fsdp_offload_params: the weights stay on the GPU here; write false, or use DeepSpeed's offload_optimizer_device")
    if _is_on(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        mistakes.append("fsdp_activation_checkpointing: write false, and give the script --gradient_checkpointing")
    if environment.get("FSDP_IGNORED_MODULES"):
        mistakes.append("fsdp_ignored_modules: the whole U-Net is shared, and nothing else; delete it")
    policy = environment.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper()
    classes = environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "") if policy == "TRANSFORMER_BASED_WRAP" else ""
    least = int(environment.get("FSDP_MIN_NUM_PARAMS", "0")) if policy == "SIZE_BASED_WRAP" else None
    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    return FSDPSettings(RESHARDING.get(written, True), names, least), mistakes


def _plan_deepspeed(settings: Settings, world_size: int, environment: Mapping[str, str]) -> SharingPlan:
    from library.train.zero import engine_config  # imports torch, which takes seconds

    asked = {name: settings.value(name) for name in OF_THE_PLUGIN if settings.changed(name)}
    stage = engine_config(asked, settings.optimizer.max_grad_norm, world_size)["zero_optimization"]["stage"]
    if stage == 0:
        return SharingPlan(notes=("zero_stage = 0: nothing is kept in parts, which needs no DeepSpeed",))
    mistakes = _misfits(settings, DEEPSPEED, trains_in_parts=True, averages_in_parts=stage == 3)
    if stage == 3:
        mistakes += _misfits_of_stage_3(settings)
    if (settings.full.stop_text_encoder_training or 0) > 0:
        mistakes.append("stop_text_encoder_training: DeepSpeed's steps move what has no gradients, too; write -1, or use FSDP")
    if "RANK" not in environment:
        mistakes.append("deepspeed: start the script with accelerate launch, which tells processes of each other")
    if importlib.util.find_spec("deepspeed") is None:
        mistakes.append("deepspeed: the package is not installed; pip install deepspeed")
    if mistakes:
        raise UserError(*mistakes)
    return SharingPlan(
        "deepspeed", deepspeed=asked, max_grad_norm=settings.optimizer.max_grad_norm, writes_model=settings.script.method == "full"
    )


def _misfits(settings: Settings, name: str, trains_in_parts: bool, averages_in_parts: bool) -> list[str]:
    """Options that do not go with weights, or with the numbers of trained ones, of which each process has a part."""
    options = NEVER_IN_PARTS + (NEVER_TRAINED_IN_PARTS if trains_in_parts else ())
    mistakes = [f"{option}: this does not go with {name}; remove it" for option in options if settings.changed(option)]
    if settings.training.mixed_precision == "fp16":
        mistakes.append(f'mixed_precision: gradients are not scaled under {name}; write mixed_precision = "bf16"')
    if trains_in_parts:
        mistakes += _misfits_of_optimizer(settings, name)
    if averages_in_parts and settings.training.ema:
        mistakes.append(f"ema: no process has all the weights under {name}; remove it, or write zero_stage = 2 with DeepSpeed")
    return mistakes


def _misfits_of_optimizer(settings: Settings, name: str) -> list[str]:
    from library.optim.optimizers import unfit_for_parts  # imports torch, which takes seconds

    reason = unfit_for_parts(settings.optimizer, only_torchs=name == FSDP)
    return [f"optimizer_type: {reason}, and under {name} each process steps a part of the weights; write AdamW"] if reason else []


def _misfits_of_stage_3(settings: Settings) -> list[str]:
    mistakes = []
    if settings.training.gradient_accumulation_steps > 1:
        mistakes.append("zero_stage: DeepSpeed's stage 3 does not add up gradients of our batches; write zero_stage = 2")
    if settings.changed("scale_weight_norms"):
        mistakes.append("scale_weight_norms: no process has all the weights in stage 3; write zero_stage = 2")
    if settings.embedding.token_string:
        mistakes.append("zero_stage: the vectors of words are too small for parts; write zero_stage = 2")
    return mistakes
