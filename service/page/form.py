"""The form of a new training: its fields from the declarations, what was written in them as inputs, and mistakes beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from library.config.declare import Option
from service.problems import FieldMistake
from service.training import from_console
from service.training.advanced import PREFIX, SCRIPT_OF, advanced_options
from service.training.fields import REQUIRED, Choice, Field, Flag, Number, Whole
from service.training.models import Models

LABELS = {
    "method": "What to train", "name": "Name", "description": "Notes", "model": "Base model", "vae": "VAE",
    "instance_prompt": "Prompt of your pictures", "class_prompt": "Prompt of the class",
    "with_prior_preservation": "Keep what the class looks like", "num_class_images": "Class pictures",
    "prior_loss_weight": "Weight of the class", "seed": "Seed", "resolution": "Resolution", "center_crop": "Crop at the centre",
    "train_text_encoder": "Train the text encoder, too", "train_batch_size": "Pictures at a time", "num_train_epochs": "Epochs",
    "max_train_steps": "Steps", "gradient_accumulation_steps": "Accumulated batches", "gradient_checkpointing": "Save memory (slower)",
    "learning_rate": "Learning rate", "scale_lr": "Scale the rate with the batch", "lr_scheduler": "Schedule",
    "lr_warmup_steps": "Warm-up steps", "use_8bit_adam": "8-bit Adam", "adam_beta1": "Adam beta 1", "adam_beta2": "Adam beta 2",
    "adam_weight_decay": "Weight decay", "adam_epsilon": "Adam epsilon", "max_grad_norm": "Largest gradient norm",
    "pad_tokens": "Pad prompts", "save_sample_prompt": "Prompt of samples", "save_sample_negative_prompt": "Not in samples",
    "n_save_sample": "How many", "save_guidance_scale": "Guidance", "save_infer_steps": "Steps of a sample",
    "mixed_precision": "Precision", "validation_epochs": "Draw every … epochs",
}  # fmt: skip
METHODS = {"dreambooth": "The whole model (DreamBooth)", "lora": "A small network beside it (LoRA)"}
HINTS = {
    "name": "Letters, digits and . _ - such as my-frog.",
    "instance_prompt": "What your pictures show, with a rare word that stands for it: “a sks frog”. A caption file beside a picture wins.",
    "class_prompt": "What things of that class are called, without your word: “a frog”.",
    "with_prior_preservation": "Pictures of the class are trained beside yours, so that others of its kind stay as they are.",
    "num_class_images": "Those that your upload lacks are drawn before the training.",
    "learning_rate": "Left empty: 1e-6 for the whole model, 5e-4 for a LoRA.",
    "max_train_steps": "Decides instead of epochs.",
    "save_sample_prompt": "Left empty: the prompt of your pictures.",
    "validation_epochs": "Left empty: at the end only.",
}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Subject": ("name", "method", "model", "instance_prompt", "class_prompt", "with_prior_preservation", "num_class_images"),
    "Course": ("max_train_steps", "learning_rate", "resolution", "train_batch_size", "seed"),
    "Sample pictures": (
        "save_sample_prompt", "save_sample_negative_prompt", "n_save_sample", "save_guidance_scale", "save_infer_steps",
        "validation_epochs",
    ),
}  # fmt: skip
FURTHER = "Training"  # what is in none of these groups, under "advanced"
LONG = ("description", "instance_prompt", "class_prompt", "save_sample_prompt", "save_sample_negative_prompt")


@dataclass(frozen=True)
class Preset:
    """A starting point: what it sets, and what for."""

    title: str
    text: str
    values: Mapping[str, Any]


DRAWN_BETWEEN = {"validation_epochs": 40}  # with five to twenty pictures: two to five times
PRESETS: Mapping[str, Preset] = {
    "subject": Preset(
        "A subject", "Somebody or something, into the whole model.",
        {
            "method": "dreambooth", "with_prior_preservation": True, "num_class_images": 50,
            "max_train_steps": 1000, "learning_rate": 2e-6, **DRAWN_BETWEEN,
        },
    ),
    "lora": Preset(
        "A small file", "The same as a LoRA of a few megabytes.",
        {
            "method": "lora", "with_prior_preservation": False,
            "max_train_steps": 1500, "learning_rate": 2e-4, "train_text_encoder": False, **DRAWN_BETWEEN,
        },
    ),
    "style": Preset(
        "A style", "The look of your pictures, as a LoRA of a higher rank.",
        {
            "method": "lora", "with_prior_preservation": False, "max_train_steps": 3000, "learning_rate": 1e-4, "train_text_encoder": False,
            **DRAWN_BETWEEN, "advanced": {"network_dim": 16, "network_alpha": 16.0},
        },
    ),
    "trial": Preset(
        "A trial", "A few steps, to see that everything works.",
        {
            "method": "lora", "with_prior_preservation": False,
            "max_train_steps": 20, "n_save_sample": 1, "save_infer_steps": 10, "validation_epochs": 2,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Control:
    """One field as the template draws it. `value` is what stands in it; "" where the default counts."""

    name: str
    label: str
    kind: str  # text, lines, number, flag, choice
    value: Any = ""
    placeholder: str = ""
    help: str = ""
    choices: Sequence[tuple[str, str]] = ()
    required: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)  # min, max, step of numbers; maxlength of texts
    mistakes: Sequence[str] = ()

    @property
    def id(self) -> str:
        return "f-" + self.name.replace(".", "-").replace("_", "-")


@dataclass(frozen=True)
class Form:
    groups: Mapping[str, Sequence[Control]]
    further: Sequence[Control]  # under "advanced": the inputs that are in no group
    options: Mapping[str, Sequence[Control]]  # and the options of the trainer, by the methods that have them
    mistakes: Sequence[tuple[str, str, str]]  # id of the control, its label, what is wrong

    @property
    def opens_advanced(self) -> bool:
        """What was written there, or is wrong there, is in sight."""
        options = [control for controls in self.options.values() for control in controls]
        return any(control.mistakes for control in (*self.further, *options)) or any(control.value not in ("", None) for control in options)


def make_form(inputs: Mapping[str, Any], models: Models, mistakes: Sequence[FieldMistake] = ()) -> Form:
    """The form with these inputs in it."""
    told: dict[str, list[str]] = {}
    for mistake in mistakes:
        told.setdefault(mistake.field, []).append(mistake.message)
    fields = {entry.name: entry for entry in from_console.FIELDS}
    controls = {name: _control(entry, inputs.get(name), models, told.get(name, [])) for name, entry in fields.items()}
    grouped = {name for names in GROUPS.values() for name in names}
    options = _options(dict(inputs.get(PREFIX) or {}), told)
    shown = {control.name: control for control in (*controls.values(), *(one for group in options.values() for one in group))}
    return Form(
        groups={title: [controls[name] for name in names] for title, names in GROUPS.items()},
        further=[control for name, control in controls.items() if name not in grouped],
        options=options,
        mistakes=[_told(shown.get(mistake.field), mistake) for mistake in mistakes],
    )


def _told(control: Control | None, mistake: FieldMistake) -> tuple[str, str, str]:
    return (control.id, control.label, mistake.message) if control else ("", "", mistake.message)


def _control(entry: Field, value: Any, models: Models, mistakes: Sequence[str]) -> Control:
    label = LABELS.get(entry.name, entry.name)
    hint = HINTS.get(entry.name, entry.help)
    default = "" if entry.default is REQUIRED or entry.default is None else entry.default
    shared: dict[str, Any] = {"label": label, "help": hint, "mistakes": mistakes, "required": entry.default is REQUIRED}
    if isinstance(entry.check, Flag):
        return Control(entry.name, kind="flag", value=bool(default if value is None else value), **shared)
    written = "" if value is None else value
    choices = _choices(entry, models, default)
    if choices:
        return Control(entry.name, kind="choice", value=written, choices=choices, **shared)
    kind = "number" if isinstance(entry.check, Whole | Number) else "lines" if entry.name in LONG else "text"
    placeholder = f"{default:g}" if isinstance(default, float) else str(default)
    return Control(entry.name, kind=kind, value=written, placeholder=placeholder, attributes=_attributes(entry), **shared)


def _choices(entry: Field, models: Models, default: Any) -> list[tuple[str, str]]:
    """Value and text of each; "" is the default."""
    if entry.name == "method":
        return list(METHODS.items())
    if entry.name == "model":
        default = f"{models.default} (default)" if models.default else "none is registered"
        return [("", default), *((name, name) for name in sorted(models.models))]
    if entry.name == "vae":
        return [("", "the model's own"), *((name, name) for name in sorted(models.vaes))]
    if isinstance(entry.check, Choice):
        return [("", f"{default} (default)"), *((name, name) for name in entry.check.names)]
    return []


def _attributes(entry: Field) -> dict[str, Any]:
    schema = entry.check.schema()
    if isinstance(entry.check, Whole):
        return {"min": schema["minimum"], "max": schema["maximum"], "step": schema.get("multipleOf", 1)}
    if isinstance(entry.check, Number):
        return {"step": "any"}
    return {"maxlength": schema["maxLength"]} if "maxLength" in schema else {}


def _options(values: Mapping[str, Any], told: Mapping[str, list[str]]) -> dict[str, list[Control]]:
    """Options that both methods have, then those of one of them."""
    full, network = (advanced_options(method) for method in SCRIPT_OF)
    groups = {
        "Options of the trainer": [name for name in full if name in network],
        "Only for the whole model": [name for name in full if name not in network],
        "Only for a LoRA": [name for name in network if name not in full],
    }
    known = {**network, **full}
    found = {title: [_option(known[name], values.get(name), told) for name in names] for title, names in groups.items()}
    return {title: controls for title, controls in found.items() if controls}


def _option(option: Option, value: Any, told: Mapping[str, list[str]]) -> Control:
    name, declared = f"{PREFIX}.{option.name}", option.declared
    shared: dict[str, Any] = {"label": option.name, "help": declared.help, "mistakes": told.get(name, [])}
    default = option.default
    if option.kind.name == "bool" or isinstance(default, bool):
        choices = [("", f"{'on' if default else 'off'} (default)"), ("true", "on"), ("false", "off")]
        return Control(name, kind="choice", value="" if value is None else str(value).lower(), choices=choices, **shared)
    written = "" if value is None else value
    if declared.choices:
        choices = [("", "default" if default is None else f"{default} (default)"), *((str(one), str(one)) for one in declared.choices)]
        return Control(name, kind="choice", value=str(written), choices=choices, **shared)
    return Control(name, kind="text", value=written, placeholder="" if default is None else str(default), **shared)


def read_form(written: Mapping[str, str]) -> dict[str, Any]:
    """Inputs as `from_console.read` takes them. An empty field is one that is left out; a box without a tick is false."""
    inputs: dict[str, Any] = {}
    for entry in from_console.FIELDS:
        if isinstance(entry.check, Flag):
            inputs[entry.name] = entry.name in written
        elif written.get(entry.name):
            inputs[entry.name] = written[entry.name]
    prefix = f"{PREFIX}."
    options = {name.removeprefix(prefix): _typed(text) for name, text in written.items() if name.startswith(prefix) and text}
    return {**inputs, PREFIX: options} if options else inputs


def _typed(text: str) -> Any:
    """As a file of settings would hold it: a form has texts only."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def with_preset(inputs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The inputs with what the preset sets, and without what another would have set; names and prompts stay."""
    preset = PRESETS.get(name)
    if preset is None:
        return dict(inputs)
    of_presets = {key for one in PRESETS.values() for key in one.values if key != PREFIX}
    options_of_presets = {key for one in PRESETS.values() for key in one.values.get(PREFIX, {})}
    kept = {key: value for key, value in inputs.items() if key not in of_presets}
    options = {key: value for key, value in dict(inputs.get(PREFIX) or {}).items() if key not in options_of_presets}
    return {**kept, **preset.values, PREFIX: {**options, **preset.values.get(PREFIX, {})}}


def preset_of(inputs: Mapping[str, Any]) -> str:
    """The starting point that these inputs still follow; "" if none."""
    options = inputs.get(PREFIX) or {}
    for name, preset in PRESETS.items():
        wanted = {**preset.values, **preset.values.get(PREFIX, {})}
        if all(str(value) == str({**inputs, **options}.get(key)) for key, value in wanted.items() if key != PREFIX):
            return name
    return ""
