"""train-diffuser and train: a training is made, its pictures are sent, and it is in the queue."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from library.errors import UserError
from service.cli.access import find_access
from service.cli.forms import Asked, words_and_key
from service.cli.parcel import Pictures, pack, pictures_in
from service.cli.remote import Failed, Remote
from service.cli.show import bytes_bar, note, tell_fields, tell_json
from service.training import from_cerebrium
from service.training.fields import BadInput

WORDS = ("NAME", "HF_MODEL_PATH", "LOCAL_DATASET_PATH", "TRAINING_PROMPT")
LOG_LEVELS = ("DEBUG", "INFO")
SENT_WITH_JOB = ("name", "hf_model_path", "hardware", "cpu", "memory", "init_debug", "pre_init_debug", "log_level")
NOT_SENT = ("api_key", "train_image_dir", "local_dataset_path")  # a secret, and places on this machine
LEFT_OUT_NAMED = 3
ZIP = "application/zip"


@dataclass(frozen=True, kw_only=True)
class TrainDiffuser(Asked):
    words: Annotated[
        list[str], typer.Argument(metavar="NAME [API_KEY] HF_MODEL_PATH LOCAL_DATASET_PATH TRAINING_PROMPT", show_default=False)
    ]
    prior_class_image_dir: Annotated[str | None, typer.Option(metavar="FOLDER", help="Pictures of the class.")] = None
    prior_class_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What pictures of the class show.")] = None
    num_prior_class_images: Annotated[
        int, typer.Option(metavar="N", help="How many pictures of the class; what is missing is drawn.")
    ] = 0
    training_args: Annotated[
        str, typer.Option(metavar="JSON", help='Such as \'{"num_train_epochs": 5, "learning_rate": 1e-4}\'.')
    ] = "{}"
    revision: Annotated[str, typer.Option(metavar="NAME", help="The revision of the model.")] = "main"
    log_level: Annotated[str, typer.Option(metavar="DEBUG|INFO", help="Has no effect on a training.")] = "INFO"


@dataclass(frozen=True, kw_only=True)
class Train(Asked):
    words: Annotated[list[str] | None, typer.Argument(metavar="[API_KEY]", show_default=False)] = None
    config_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A .yaml or .json file of the training.")] = None
    config_string: Annotated[str | None, typer.Option(metavar="TEXT", help="The same as text.")] = None


def train_diffuser(asked: TrainDiffuser) -> None:
    """Train on the pictures in a folder. An API key may stand after the name."""
    (name, model, folder, prompt), key = words_and_key(asked.words, WORDS, asked.api_key)
    if asked.log_level not in LOG_LEVELS:
        raise UserError(f"--log-level: write {' or '.join(LOG_LEVELS)}, not {asked.log_level}")
    try:
        arguments = json.loads(asked.training_args)
    except ValueError as error:
        raise UserError(
            f"--training-args: this is no JSON ({error}): write '{{\"num_train_epochs\": 5}}', quotes included"
        ) from None
    config: dict[str, Any] = {
        "training_type": "diffuser", "name": name, "hf_model_path": model, "train_prompt": prompt, "train_image_dir": folder,
        "revision": asked.revision, "log_level": asked.log_level, "training_args": arguments,
    }  # fmt: skip
    optional = {
        "prior_class_prompt": asked.prior_class_prompt,
        "prior_class_image_dir": asked.prior_class_image_dir,
        "num_prior_class_images": asked.num_prior_class_images,
    }
    _start(asked, {**config, **{option: value for option, value in optional.items() if value}}, key)


def train(asked: Train) -> None:
    """Train by a configuration. Its train_image_dir is a folder of pictures."""
    words = asked.words or []
    if len(words) > 1:
        raise UserError(f"{len(words)} words are too many: write train [API_KEY] --config-file FILE")
    if (asked.config_file is None) == (asked.config_string is None):
        raise UserError("give the training as --config-file FILE or as --config-string TEXT, one of the two")
    config = _read_config(asked.config_file, asked.config_string)
    _start(asked, config, asked.api_key or next(iter(words), None) or config.get("api_key"))


def _read_config(path: Path | None, text: str | None) -> dict[str, Any]:
    """YAML, of which JSON is a part."""
    import yaml

    place = str(path) if path is not None else "--config-string"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8") if path is not None else text or "")
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}): name the .yaml file of a training") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{place}: this is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{place}: write names and values, such as `name: my-frog` and `train_image_dir: pictures`")
    return content


def _start(asked: Asked, config: Mapping[str, Any], key: str | None) -> None:
    """Make the job and send its pictures. What can be checked here is, before anything is made there."""
    sent, instance, classes = _checked(config)
    access = find_access(asked.server, key)
    with tempfile.TemporaryDirectory(prefix="tadpole-") as temporary, Remote(access) as remote:
        parcel = Path(temporary) / "training.zip"
        pack(sent, instance, classes, parcel)
        made = remote.post("/train", {name: sent[name] for name in SENT_WITH_JOB if name in sent})
        with bytes_bar("sending the pictures", parcel.stat().st_size, asked.json) as advance:
            remote.upload(made["uploadUrl"], parcel, ZIP, advance)
        state = remote.post("/job-logs", {"jobId": made["jobId"]})  # a bucket tells nobody that the archive is there: this does
    if state["status"] == "failed":
        raise Failed(f"the training {made['jobId']} was not taken: {' '.join(' '.join(state['trainingLogs']).split())}")
    if asked.json:
        tell_json({"jobId": made["jobId"], "name": sent["name"], "pictures": len(instance.files)})
        return
    tell_fields({"job": made["jobId"], "pictures": len(instance.files)})
    note(f"tadpole get-training-logs {made['jobId']} follows it, tadpole download-model {made['jobId']} fetches what came of it")


def _checked(config: Mapping[str, Any]) -> tuple[dict[str, Any], Pictures, Pictures | None]:
    """What is sent of a configuration, and the pictures of the subject and of its class."""
    folder = config.get("train_image_dir") or config.get("local_dataset_path")
    if not isinstance(folder, str):
        raise UserError("train_image_dir is missing: name the folder of your pictures")
    if not config.get("name"):
        raise UserError("name is missing: name the training")
    sent = {name: value for name, value in config.items() if name not in NOT_SENT}
    try:
        from_cerebrium.read(sent)
    except BadInput as error:
        raise UserError(*(f"{problem.field}: {problem.message}" for problem in error.problems)) from None
    instance, classes = pictures_in(Path(folder), "train_image_dir"), None
    if sent.get("prior_class_image_dir"):
        classes = pictures_in(Path(sent["prior_class_image_dir"]), "prior_class_image_dir")
        sent["prior_class_image_dir"] = "classData"  # that there is one matters, not where
    left_out = [*instance.others, *(classes.others if classes else [])]
    if left_out:
        more = f" and {len(left_out) - LEFT_OUT_NAMED} more" if len(left_out) > LEFT_OUT_NAMED else ""
        note(f"left out, as they are no .jpg, .jpeg or .png: {', '.join(left_out[:LEFT_OUT_NAMED])}{more}")
    return sent, instance, classes
