"""The inputs of Cerebrium's diffuser trainer: its configuration, with training_args in it, in both generations of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.training import request as r
from service.training.fields import BadInput, Choice, Field, FieldProblem, Flag, Ignored, Name, Text, Whole, read_fields
from service.training.request import TrainingRequest

ARGUMENTS = "training_args"
_ANY = Text(least=0, most=4000)  # folders on the client's machine, whose pictures came with the upload

CONFIG: tuple[Field, ...] = (
    Field("name", "name", Name(), None),
    Field("hf_model_path", "model", Name()),
    Field("revision", "revision", Text(most=100), "main"),
    Field("train_prompt", "instance_prompt", r.PROMPT, aliases=("training_prompt",)),
    Field("validation_prompt", "sample_prompt", r.PROMPT, None),
    Field("prior_class_prompt", "class_prompt", r.PROMPT, None),
    Field("prior_class_image_dir", "class_data", _ANY, None),
    Field("custom_tokenizer", "custom_tokenizer", _ANY, ""),
    Field("training_type", "training_type", Choice(("diffuser", "transformer")), "diffuser"),
    Field("train_image_dir", None, _ANY, None, aliases=("local_dataset_path",)),
    *(
        Field(name, None, Ignored(), None)
        for name in ("log_level", "api_key", "hardware", "cpu", "memory", "init_debug", "pre_init_debug", "cerebrium_version")
    ),
)

TRAINING_ARGS: tuple[Field, ...] = (
    Field("gradient_accumulation_steps", "gradient_accumulation_steps", r.ACCUMULATION, 1),
    Field("learning_rate", "learning_rate", r.LEARNING_RATE, 5e-4),
    Field("lr_schedule", "lr_scheduler", r.SCHEDULE, "constant", aliases=("lr_scheduler",)),
    Field("max_train_steps", "max_train_steps", r.STEPS, None, help="Decides instead of num_train_epochs."),
    Field("num_train_epochs", "num_train_epochs", r.EPOCHS, 30),
    Field("train_batch_size", "train_batch_size", r.BATCH, 2),
    Field("scale_lr", "scale_lr", r.FLAG, False),
    Field("warmup_steps", "lr_warmup_steps", r.WARM_UP, 0, aliases=("lr_warmup_steps",)),
    Field("validation_epochs", "validation_epochs", r.EPOCHS, 10),
    Field("use_8bit_adam", "use_8bit_adam", r.FLAG, True),
    Field("num_validation_images", "sample_count", r.SAMPLE_COUNT, 4),
    Field("seed", "seed", r.SEED, r.DEFAULT_SEED),
    Field("resolution", "resolution", r.RESOLUTION, 512),
    Field("center_crop", "center_crop", r.FLAG, False),
    Field("prior_loss_weight", "prior_loss_weight", r.LOSS_WEIGHT, 1.0),
    Field("lr_num_cycles", "lr_num_cycles", Whole(1, 1000), 1),
    Field("lr_power", "lr_power", r.GUIDANCE, 1.0),
    Field("max_grad_norm", "max_grad_norm", r.NORM, 1.0),
    Field("mixed_precision", "mixed_precision", r.PRECISION, "no"),
    Field("prior_class_generation_batch_size", None, r.BATCH, 2),
    Field("prior_generation_precision", None, Choice(("no", "fp32", "fp16", "bf16")), None),
    Field("allow_tf32", None, Flag(), False),
    Field("use_xformers", None, Flag(), False),
)
_CLASS_COUNT = Field("num_prior_class_images", "num_class_images", r.CLASS_COUNT, 0)
_CONCERNS_SPEED = {  # what a client may have chosen in vain
    "prior_class_generation_batch_size": "class pictures are drawn train_batch_size at a time",
    "prior_generation_precision": "class pictures are drawn in mixed_precision",
    "allow_tf32": "the operator's machine decides",
    "use_xformers": "PyTorch's own attention is used, which computes the same",
}


def read(inputs: Mapping[str, object]) -> TrainingRequest:
    """The training that a configuration asks for; BadInput with everything that is wrong with it.

    Problems in training_args are named "training_args.learning_rate". num_prior_class_images stands there, or beside them.
    """
    inputs = dict(inputs)
    arguments = inputs.pop(ARGUMENTS, None) or {}
    problems: list[FieldProblem] = []
    if not isinstance(arguments, Mapping):
        problems.append(FieldProblem(ARGUMENTS, "this is a table of names and values, such as {learning_rate: 0.0001}"))
        arguments = {}
    inner = arguments.get(_CLASS_COUNT.name) is not None
    if inner and inputs.get(_CLASS_COUNT.name) is not None:
        problems.append(FieldProblem(_CLASS_COUNT.name, "this stands in training_args, too; remove one of them"))
    outer = read_fields(inputs, CONFIG if inner else (*CONFIG, _CLASS_COUNT))
    nested = read_fields(arguments, (*TRAINING_ARGS, _CLASS_COUNT) if inner else TRAINING_ARGS)
    problems += outer.problems + [FieldProblem(f"{ARGUMENTS}.{problem.field}", problem.message) for problem in nested.problems]
    values = outer.values | nested.values
    problems += _more_problems(values)
    if problems:
        raise BadInput(problems)
    return TrainingRequest(
        method="lora",
        with_prior_preservation=values["class_prompt"] is not None,
        train_text_encoder=False,
        pad_tokens=True,
        **{name: value for name, value in values.items() if name not in ("custom_tokenizer", "training_type")},
        warnings=tuple(_warnings(nested.given)),
    )


def _more_problems(values: Mapping[str, Any]) -> list[FieldProblem]:
    problems = []
    if values["custom_tokenizer"]:
        problems.append(FieldProblem("custom_tokenizer", "other tokenizers than the model's are not taken; leave it empty"))
    if values["training_type"] == "transformer":
        problems.append(FieldProblem("training_type", "language models are not trained here; write diffuser"))
    pictures = values["num_class_images"] or values["class_data"]
    if values["class_prompt"] and not pictures:
        message = "prior_class_prompt needs class pictures; write 50, or give a folder of them"
        problems.append(FieldProblem("num_prior_class_images", message))
    if pictures and not values["class_prompt"]:
        problems.append(FieldProblem("prior_class_prompt", "class pictures need it; write what they show"))
    return problems


def _warnings(given: set[str]) -> list[str]:
    warnings = [f"{name} has no effect: {reason}" for name, reason in _CONCERNS_SPEED.items() if name in given]
    if {"max_train_steps", "num_train_epochs"} <= given:
        warnings.append("num_train_epochs has no effect: max_train_steps decides")
    return warnings
