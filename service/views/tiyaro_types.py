"""The types of Tiyaro's GraphQL schema, code first: what `tiyaro.graphql` beside this says."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

import strawberry


@strawberry.enum(description="The kind of job. Only DreamBooth is documented; the enum leaves room for more.")
class JobType(Enum):
    dreambooth = "dreambooth"


@strawberry.enum
class JobStatusEnum(Enum):
    running = "running"
    done = "done"
    failed = "failed"
    notfound = "notfound"


@strawberry.type(description="What getJobStatus reports. Times are ISO-8601 UTC strings; every field may be null.")
class JobStatus:
    statusEnum: JobStatusEnum | None = None
    errMsg: str | None = None
    created: str | None = None
    finished: str | None = None
    jobInput: str | None = strawberry.field(default=None, description="JSON text of the input given to startTrainingJob")


@strawberry.type(description="One model produced by a finished training job (current name).")
class TrainedModels:
    vendor: str
    version: str
    name: str
    url: str
    modelCard: str


@strawberry.type(description="One model produced by a finished job (older name, same shape).")
class RetrainedModels:
    vendor: str
    version: str
    name: str
    url: str
    modelCard: str


@strawberry.input
class DreamBoothInput:
    name: str
    version: str
    desc: str | None = strawberry.UNSET
    datasetS3ObjName: str
    class_prompt: str
    instance_prompt: str
    model: str | None = strawberry.UNSET
    vae: str | None = strawberry.UNSET
    resolution: int | None = strawberry.UNSET
    train_batch_size: int | None = strawberry.UNSET
    gradient_accumulation_steps: int | None = strawberry.UNSET
    max_train_steps: int | None = strawberry.UNSET
    seed: int | None = strawberry.UNSET
    with_prior_preservation: bool | None = strawberry.UNSET
    prior_loss_weight: float | None = strawberry.UNSET
    num_class_images: int | None = strawberry.UNSET
    learning_rate: float | None = strawberry.UNSET
    lr_scheduler: str | None = strawberry.UNSET
    lr_warmup_steps: int | None = strawberry.UNSET
    train_text_encoder: bool | None = strawberry.UNSET
    use_8bit_adam: bool | None = strawberry.UNSET
    mixed_precision: str | None = strawberry.UNSET
    adam_beta1: float | None = strawberry.UNSET
    adam_beta2: float | None = strawberry.UNSET
    adam_weight_decay: float | None = strawberry.UNSET
    adam_epsilon: float | None = strawberry.UNSET
    max_grad_norm: float | None = strawberry.UNSET


@strawberry.input
class JobInput:
    jobType: JobType | None = strawberry.UNSET
    dreamboothInput: DreamBoothInput | None = strawberry.UNSET


def as_sent(value: Any) -> dict[str, Any]:
    """What the client wrote, and nothing that it left out."""
    written = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _plain(part) for name, part in written.items() if part is not strawberry.UNSET}


def _plain(value: Any) -> Any:
    if isinstance(value, DreamBoothInput):
        return as_sent(value)
    return value.value if isinstance(value, Enum) else value
