"""Options of DeepSpeed, which lets processes share what one of them has no room for."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option

OFFLOAD_DEVICES = ("cpu", "nvme")


@dataclass(frozen=True, kw_only=True)
class DeepSpeedOptions:
    """Sharing a training over processes with DeepSpeed. The answers of `accelerate config` do the same."""

    deepspeed: bool = option(False, "Let the processes share the training with DeepSpeed; start them with accelerate launch.")
    zero_stage: int = option(
        2,
        "What each process keeps only a part of: 1 the optimizer's numbers, 2 gradients too, 3 weights too; 0 nothing.",
        choices=(0, 1, 2, 3),
    )
    offload_optimizer_device: str | None = option(
        None, "Where the optimizer's numbers are kept instead of the GPU.", choices=OFFLOAD_DEVICES
    )
    offload_optimizer_nvme_path: str | None = option(None, "Folder on the NVMe disk for them.", private=True)
    offload_param_device: str | None = option(
        None, "Where weights are kept instead of the GPU while they are not needed (zero_stage 3).", choices=OFFLOAD_DEVICES
    )
    offload_param_nvme_path: str | None = option(None, "Folder on the NVMe disk for them.", private=True)
    zero3_init_flag: bool = option(False, "Handed to DeepSpeed; models are read tensor by tensor in any case.")
    zero3_save_16bit_model: bool = option(False, "Handed to DeepSpeed; saved files hold the whole weights in any case.")
