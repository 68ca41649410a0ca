"""A request with everything decided that depends on this service: which files, which precision, which optimizer, which rate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from service.training.fields import BadInput, FieldProblem
from service.training.models import ChosenBase, Models
from service.training.request import TrainingRequest


@dataclass(frozen=True)
class Machine:
    """What a training will run on, as far as its options depend on it."""

    has_cuda: bool = False
    has_bf16: bool = False
    has_8bit_adam: bool = True  # bitsandbytes is installed
    processes: int = 1


@dataclass(frozen=True)
class ResolvedRequest:
    """What will be trained."""

    request: TrainingRequest
    base: ChosenBase
    processes: int
    learning_rate: float  # scale_lr applied
    lr_scheduler: str
    optimizer_type: str
    mixed_precision: str
    with_prior_preservation: bool
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For the client: every value as it is used, and no place on this machine. Under "request" stands what was asked for."""
        used = {
            "model": self.base.model.name,
            "revision": self.base.revision,
            "vae": self.base.vae_name,
            "processes": self.processes,
            "learning_rate": self.learning_rate,
            "lr_scheduler": self.lr_scheduler,
            "optimizer_type": self.optimizer_type,
            "mixed_precision": self.mixed_precision,
            "with_prior_preservation": self.with_prior_preservation,
            "sample_prompt": self.request.sample_prompt or self.request.instance_prompt,
            "warnings": list(self.warnings),
        }
        asked = self.request.to_json()
        return {**asked, **used, "request": asked}


def resolve(request: TrainingRequest, machine: Machine, models: Models) -> ResolvedRequest:
    """What the request means here; BadInput where it means nothing."""
    base = models.choose(request)
    warnings = list(request.warnings)
    return ResolvedRequest(
        request=request,
        base=base,
        processes=machine.processes,
        learning_rate=_learning_rate(request, machine, warnings),
        lr_scheduler=_schedule(request, warnings),
        optimizer_type=_optimizer(request, machine, warnings),
        mixed_precision=_precision(request, machine, warnings),
        with_prior_preservation=_keeps_class(request, warnings),
        warnings=tuple(warnings),
    )


def with_class_pictures(resolved: ResolvedRequest, class_pictures: int) -> ResolvedRequest:
    """The same once the upload is open and holds so many of them; BadInput if the class cannot be kept so."""
    request, warnings = resolved.request, list(resolved.warnings)
    if resolved.with_prior_preservation and not class_pictures and not request.num_class_images:
        message = "class pictures are needed and the upload holds none; write 50, or with_prior_preservation = false"
        raise BadInput([FieldProblem("num_class_images", message)])
    if class_pictures and not resolved.with_prior_preservation:
        warnings.append(f"{class_pictures} class pictures of the upload are not used: prior preservation is off")
    return dataclasses.replace(resolved, warnings=tuple(warnings))


def _learning_rate(request: TrainingRequest, machine: Machine, warnings: list[str]) -> float:
    if not request.scale_lr:
        return request.learning_rate
    factor = request.gradient_accumulation_steps * request.train_batch_size * machine.processes
    rate = request.learning_rate * factor
    warnings.append(
        f"scale_lr: the learning rate is {rate:g}, {request.learning_rate:g} x {request.gradient_accumulation_steps} accumulated x "
        f"{request.train_batch_size} pictures x {machine.processes} processes"
    )
    return rate


def _schedule(request: TrainingRequest, warnings: list[str]) -> str:
    if request.lr_scheduler == "constant" and request.lr_warmup_steps:
        warnings.append(f"lr_scheduler: constant has no warm-up; constant_with_warmup is used for {request.lr_warmup_steps} steps of it")
        return "constant_with_warmup"
    return request.lr_scheduler


def _optimizer(request: TrainingRequest, machine: Machine, warnings: list[str]) -> str:
    if not request.use_8bit_adam:
        return "AdamW"
    if machine.has_cuda and machine.has_8bit_adam:
        return "AdamW8bit"
    needed = "bitsandbytes, which is not installed" if machine.has_cuda else "an NVIDIA GPU and there is none"
    warnings.append(f"use_8bit_adam: 8-bit Adam needs {needed}; AdamW is used")
    return "AdamW"


def _precision(request: TrainingRequest, machine: Machine, warnings: list[str]) -> str:
    if request.mixed_precision == "no":
        return "no"
    if not machine.has_cuda:
        warnings.append(f"mixed_precision: {request.mixed_precision} needs a GPU and there is none; float32 is used")
        return "no"
    if request.mixed_precision == "bf16" and not machine.has_bf16:
        warnings.append("mixed_precision: this GPU has no bf16; fp16 is used")
        return "fp16"
    return request.mixed_precision


def _keeps_class(request: TrainingRequest, warnings: list[str]) -> bool:
    if not request.with_prior_preservation:
        return False
    if not request.prior_loss_weight:
        warnings.append("prior_loss_weight is 0: the class pictures would count nothing, and are left out")
        return False
    return True
