"""What is asked for, in one set of words whichever service's words it came in: checked, with defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from service.training.fields import BadInput, Check, Choice, FieldProblem, Flag, Number, Text, Whole

__all__ = ["BadInput", "FieldProblem", "TrainingRequest"]

SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
MOST_SEED = 2**31 - 1
DEFAULT_SEED = 1337  # where a service promises none: then two jobs of a class share the pictures that are drawn for it

PROMPT = Text()
OPTIONAL_PROMPT = Text(least=0)
REMARK = Text(least=0, most=4000, has_lines=True)
ADDRESS = Text(most=4000)
SEED = Whole(0, MOST_SEED)
RESOLUTION = Whole(64, 2048, multiple_of=8)
STEPS = Whole(1, 100_000)
EPOCHS = Whole(1, 10_000)
BATCH = Whole(1, 64)
ACCUMULATION = Whole(1, 128)
WARM_UP = Whole(0, 100_000)
CLASS_COUNT = Whole(0, 1000)
LOSS_WEIGHT = Number(least=0, most=10)
LEARNING_RATE = Number(above=0, most=1)
BETA = Number(above=0, below=1)
DECAY = Number(least=0, most=10)
EPSILON = Number(above=0, most=1)
NORM = Number(least=0, most=1000)
GUIDANCE = Number(least=0, most=100)
SAMPLE_COUNT = Whole(0, 16)
SAMPLE_STEPS = Whole(1, 500)
FLAG: Check = Flag()
SCHEDULE: Check = Choice(SCHEDULES)
PRECISION: Check = Choice(("no", "fp16", "bf16"))


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A training. Counts are optimizer steps and epochs of the instance pictures; batch sizes are per process."""

    method: Literal["dreambooth", "lora"]  # the whole model (train_db.py), or the attention's projections (train_network.py)
    instance_prompt: str
    class_prompt: str | None = None
    with_prior_preservation: bool = False
    prior_loss_weight: float = 1.0
    num_class_images: int = 0
    model: str | None = None  # registered names; None: the operator's default
    revision: str = "main"
    vae: str | None = None

    # what the model will be called, and where its pictures are
    name: str | None = None
    version: str | None = None
    description: str | None = None
    instance_data: str | None = None  # an address, or the name of an upload
    class_data: str | None = None

    # how it is trained
    seed: int = DEFAULT_SEED
    resolution: int = 512
    center_crop: bool = False
    train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    max_train_steps: int | None = None  # given, it decides instead of num_train_epochs
    num_train_epochs: int = 1
    learning_rate: float = 1e-6
    scale_lr: bool = False
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    lr_num_cycles: int = 1
    lr_power: float = 1.0
    train_text_encoder: bool = True
    use_8bit_adam: bool = False
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str = "fp16"
    pad_tokens: bool = False

    # pictures that the trained model draws
    sample_prompt: str | None = None  # None: the instance prompt
    sample_negative_prompt: str = ""
    sample_count: int = 4
    sample_guidance_scale: float = 7.5
    sample_steps: int = 50
    validation_epochs: int | None = None  # draw, and keep the weights, every so many epochs; None: at the end only

    advanced: Mapping[str, Any] = field(default_factory=dict)  # options of the trainer: `advanced.py` says which
    warnings: tuple[str, ...] = ()  # what was taken otherwise than a client might think

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "advanced": dict(self.advanced), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingRequest:
        """What `to_json` gave."""
        return cls(**{**values, "warnings": tuple(values["warnings"])})
