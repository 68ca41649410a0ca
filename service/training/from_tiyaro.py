"""The inputs of Tiyaro's DreamBooth training: DreamBoothInput of its GraphQL API, in both generations of names."""

from __future__ import annotations

from collections.abc import Mapping

from service.training import request as r
from service.training.fields import BadInput, Field, Name, Text, read_fields
from service.training.request import TrainingRequest

# Its document gives no defaults; these are those of Replicate's trainer, which has the same parameters.
FIELDS: tuple[Field, ...] = (
    Field("name", "name", Name()),
    Field("version", "version", Name(64)),
    Field("desc", "description", r.REMARK, None),
    Field("datasetS3ObjName", "instance_data", Text(most=255)),
    Field("class_prompt", "class_prompt", r.PROMPT),
    Field("instance_prompt", "instance_prompt", r.PROMPT),
    Field("model", "model", Name(), None),
    Field("vae", "vae", Name(), None),
    Field("seed", "seed", r.SEED, r.DEFAULT_SEED),
    Field("prior_loss_weight", "prior_loss_weight", r.LOSS_WEIGHT, 1.0),
    Field("resolution", "resolution", r.RESOLUTION, 512),
    Field("train_batch_size", "train_batch_size", r.BATCH, 1),
    Field("lr_warmup_steps", "lr_warmup_steps", r.WARM_UP, 0),
    Field("lr_scheduler", "lr_scheduler", r.SCHEDULE, "constant"),
    Field("num_class_images", "num_class_images", r.CLASS_COUNT, 50),
    Field("learning_rate", "learning_rate", r.LEARNING_RATE, 1e-6),
    Field("gradient_accumulation_steps", "gradient_accumulation_steps", r.ACCUMULATION, 1),
    Field("max_train_steps", "max_train_steps", r.STEPS, 2000),
    Field("train_text_encoder", "train_text_encoder", r.FLAG, True),
    Field("use_8bit_adam", "use_8bit_adam", r.FLAG, False),
    Field("mixed_precision", "mixed_precision", r.PRECISION, "fp16"),
    Field("with_prior_preservation", "with_prior_preservation", r.FLAG, True),
    Field("adam_beta1", "adam_beta1", r.BETA, 0.9),
    Field("adam_beta2", "adam_beta2", r.BETA, 0.999),
    Field("adam_weight_decay", "adam_weight_decay", r.DECAY, 1e-2),
    Field("adam_epsilon", "adam_epsilon", r.EPSILON, 1e-8),
    Field("max_grad_norm", "max_grad_norm", r.NORM, 1.0),
)


def read(inputs: Mapping[str, object]) -> TrainingRequest:
    """The training that these inputs ask for; BadInput with everything that is wrong with them.

    Whether class pictures are in the zip is known once it is opened: see `job_files`.
    """
    found = read_fields(inputs, FIELDS)
    if found.problems:
        raise BadInput(found.problems)
    return TrainingRequest(method="dreambooth", **found.values)
