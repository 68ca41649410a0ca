"""The inputs of Replicate's DreamBooth trainer, the same in its official and its experimental API."""

from __future__ import annotations

from collections.abc import Mapping

from service.training import request as r
from service.training.fields import BadInput, Field, FieldProblem, read_fields
from service.training.request import TrainingRequest

FIELDS: tuple[Field, ...] = (
    Field("instance_prompt", "instance_prompt", r.PROMPT, help="What your pictures show, with a word that stands for it."),
    Field("class_prompt", "class_prompt", r.PROMPT, help="What things of that class are called, without that word."),
    Field("instance_data", "instance_data", r.ADDRESS, help="Address of a zip of your pictures."),
    Field("class_data", "class_data", r.ADDRESS, None, help="Address of a zip of class pictures."),
    Field("num_class_images", "num_class_images", r.CLASS_COUNT, 50, help="Class pictures; what is missing is drawn."),
    Field("with_prior_preservation", "with_prior_preservation", r.FLAG, True, help="Keep what the class looks like."),
    Field("prior_loss_weight", "prior_loss_weight", r.LOSS_WEIGHT, 1.0),
    Field("seed", "seed", r.SEED, r.DEFAULT_SEED),
    Field("resolution", "resolution", r.RESOLUTION, 512),
    Field("center_crop", "center_crop", r.FLAG, False),
    Field("train_text_encoder", "train_text_encoder", r.FLAG, True),
    Field("train_batch_size", "train_batch_size", r.BATCH, 1),
    Field("sample_batch_size", None, r.BATCH, 4),
    Field("num_train_epochs", "num_train_epochs", r.EPOCHS, 1),
    Field("max_train_steps", "max_train_steps", r.STEPS, 2000, help="Decides instead of num_train_epochs."),
    Field("gradient_accumulation_steps", "gradient_accumulation_steps", r.ACCUMULATION, 1),
    Field("gradient_checkpointing", "gradient_checkpointing", r.FLAG, False),
    Field("learning_rate", "learning_rate", r.LEARNING_RATE, 1e-6),
    Field("scale_lr", "scale_lr", r.FLAG, False),
    Field("lr_scheduler", "lr_scheduler", r.SCHEDULE, "constant"),
    Field("lr_warmup_steps", "lr_warmup_steps", r.WARM_UP, 0),
    Field("use_8bit_adam", "use_8bit_adam", r.FLAG, False),
    Field("adam_beta1", "adam_beta1", r.BETA, 0.9),
    Field("adam_beta2", "adam_beta2", r.BETA, 0.999),
    Field("adam_weight_decay", "adam_weight_decay", r.DECAY, 1e-2),
    Field("adam_epsilon", "adam_epsilon", r.EPSILON, 1e-8),
    Field("max_grad_norm", "max_grad_norm", r.NORM, 1.0),
    Field("pad_tokens", "pad_tokens", r.FLAG, False),
    Field("save_sample_prompt", "sample_prompt", r.PROMPT, None, help="What is drawn at the end; left out: instance_prompt."),
    Field("save_sample_negative_prompt", "sample_negative_prompt", r.OPTIONAL_PROMPT, ""),
    Field("n_save_sample", "sample_count", r.SAMPLE_COUNT, 4),
    Field("save_guidance_scale", "sample_guidance_scale", r.GUIDANCE, 7.5),
    Field("save_infer_steps", "sample_steps", r.SAMPLE_STEPS, 50),
)


def read(inputs: Mapping[str, object]) -> TrainingRequest:
    """The training that these inputs ask for; BadInput with everything that is wrong with them."""
    found = read_fields(inputs, FIELDS)
    values, problems = found.values, found.problems
    wants_pictures = values["with_prior_preservation"] and values["prior_loss_weight"]
    if wants_pictures and not values["class_data"] and values["num_class_images"] == 0:
        problems.append(
            FieldProblem("num_class_images", "class pictures are needed and none are given; write 50, or with_prior_preservation = false")
        )
    if problems:
        raise BadInput(problems)
    warnings = []
    if "sample_batch_size" in found.given:
        warnings.append("sample_batch_size has no effect: class pictures are drawn train_batch_size at a time")
    if {"max_train_steps", "num_train_epochs"} <= found.given:
        warnings.append("num_train_epochs has no effect: max_train_steps decides")
    if "num_train_epochs" in found.given and "max_train_steps" not in found.given:
        values["max_train_steps"] = None
    return TrainingRequest(method="dreambooth", **values, warnings=tuple(warnings))
