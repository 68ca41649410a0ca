"""The inputs of the service's own page: a method, a name, what the services have in common, and options of the trainer under "advanced"."""

from __future__ import annotations

from collections.abc import Mapping

from service.training import from_cerebrium, from_replicate
from service.training import request as r
from service.training.advanced import PREFIX, read_advanced
from service.training.fields import BadInput, Choice, Field, FieldProblem, Name, read_fields
from service.training.request import TrainingRequest

_LORA = {field.target: field.default for field in from_cerebrium.TRAINING_ARGS}  # where a network wants something else
_LEFT_OUT = {"instance_data", "class_data", "class_prompt", "sample_batch_size"}
FIELDS: tuple[Field, ...] = (
    Field("method", "method", Choice(("dreambooth", "lora")), "dreambooth", help="Train the whole model, or a small network beside it."),
    Field("name", "name", Name()),
    Field("description", "description", r.REMARK, None),
    Field("model", "model", Name(), None),
    Field("vae", "vae", Name(), None),
    Field("class_prompt", "class_prompt", r.PROMPT, None, help="What things of that class are called, without your word."),
    *(field for field in from_replicate.FIELDS if field.name not in _LEFT_OUT),
    Field("mixed_precision", "mixed_precision", r.PRECISION, "fp16"),
    Field("validation_epochs", "validation_epochs", r.EPOCHS, None, help="Draw pictures every so many epochs."),
)


def read(inputs: Mapping[str, object]) -> TrainingRequest:
    """The training that the page's form asks for; BadInput with everything that is wrong with it. The class is kept if it has a prompt."""
    inputs = dict(inputs)
    written = inputs.pop(PREFIX, None)
    found = read_fields(inputs, FIELDS)
    values, problems = found.values, found.problems
    try:
        values[PREFIX] = read_advanced(written, values["method"] or "dreambooth")
    except BadInput as error:
        problems += error.problems
    if values["class_prompt"] is None:
        if inputs.get("with_prior_preservation"):
            problems.append(FieldProblem("class_prompt", "with_prior_preservation needs it; write what things of that class are called"))
        values["with_prior_preservation"] = False
    if problems:
        raise BadInput(problems)
    if values["method"] == "lora":
        values |= {"train_text_encoder": False} | ({} if "learning_rate" in found.given else {"learning_rate": _LORA["learning_rate"]})
    if "num_train_epochs" in found.given and "max_train_steps" not in found.given:
        values["max_train_steps"] = None
    return TrainingRequest(**values)
