"""Trainer packages that the operator installed: folders with a manifest, selected by version; ours is there without one.

A package is a folder with `trainer.toml`: name, versions, the command as a list of words, and its inputs. The command is started in
the job's folder, reads inputs.json, and leaves `output.zip` in the folder that it is told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.config.text_files import read_toml
from library.errors import UserError
from service.training.fields import (
    REQUIRED,
    BadInput,
    Check,
    Choice,
    Field,
    FieldProblem,
    Flag,
    Number,
    Text,
    Whole,
    read_fields,
    schema_of,
)
from service.training.job_folder import JobFolder, write_whole
from service.training.request import ADDRESS

MANIFEST = "trainer.toml"
OUTPUT = "output.zip"
OUR_NAME = "tadpole/dreambooth"
OUR_VERSION = hashlib.sha256(b"tadpole/dreambooth 1").hexdigest()  # the last number grows when the inputs change their meaning
_KEYS = {"name", "versions", "description", "command", "inputs"}
_INPUT_KEYS = {"type", "default", "choices", "least", "most", "help"}
_PLACES = ("package", "inputs", "instance", "classes", "output")  # what a command may name in braces
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True)
class Command:
    """What starts an installed trainer, in the job's folder."""

    words: tuple[str, ...]
    output: Path  # the zip that it leaves


@dataclass(frozen=True)
class Trainer:
    """An installed trainer. Ours has no command: its requests are read by `service.training`."""

    name: str
    versions: tuple[str, ...]
    description: str = ""
    folder: Path | None = None
    command: tuple[str, ...] = ()
    inputs: tuple[Field, ...] = ()

    @property
    def is_ours(self) -> bool:
        return not self.command

    def schema(self) -> dict[str, Any]:
        """The inputs as JSON schema."""
        return schema_of(self.inputs)

    def read(self, inputs: Mapping[str, object]) -> dict[str, Any]:
        """The inputs checked, with defaults; BadInput with everything that is wrong with them."""
        found = read_fields(inputs, self.inputs)
        if found.problems:
            raise BadInput(found.problems)
        return {name: value for name, value in found.values.items() if value is not None}

    def prepare(self, inputs: Mapping[str, object], folder: JobFolder) -> Command:
        """Write the inputs, as `read` gave them, into the job's folder, and say what starts the trainer."""
        assert self.folder is not None and self.command
        folder.output.mkdir(parents=True, exist_ok=True)
        file = folder.root / "inputs.json"
        write_whole(file, json.dumps(inputs, indent=1, ensure_ascii=False) + "\n")
        places = {
            "package": self.folder, "inputs": file, "instance": folder.instance_pictures, "classes": folder.class_pictures,
            "output": folder.output,
        }  # fmt: skip
        return Command(tuple(_filled(word, places) for word in self.command), folder.output / OUTPUT)


OURS = Trainer(OUR_NAME, (OUR_VERSION,), "Stable Diffusion DreamBooth: the whole model learns your pictures.")


@dataclass(frozen=True)
class Trainers:
    """All that are installed, ours first."""

    installed: tuple[Trainer, ...] = (OURS,)

    def select(self, version: str | None) -> Trainer:
        """The one of this version (or owner/name:version); ours if none is asked for. BadInput names trainer_version."""
        if version is None:
            return OURS
        name, _, wanted = version.rpartition(":")
        for trainer in self.installed:
            if wanted in trainer.versions and name in ("", trainer.name):
                return trainer
        known = ", ".join(trainer.versions[0] for trainer in self.installed)
        raise BadInput([FieldProblem("trainer_version", f'"{version[:128]}" is not installed here; there are {known}')])


def read_trainers(folder: Path) -> Trainers:
    """Ours, and every folder in this one that has a manifest; UserError with every mistake in them.

    A manifest without a command adds versions to ours: ids by which existing clients ask for the trainer that they know.
    """
    trainers: list[Trainer] = [OURS]
    mistakes: list[str] = []
    taken = {OUR_VERSION: "ours"}
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []:
        found = _read(manifest, mistakes)
        for version in found.versions:
            if version in taken:
                mistakes.append(f"{manifest} versions: {version} is that of {taken[version]}; give each trainer versions of its own")
            taken[version] = str(manifest.parent)
        trainers.append(found)
    if mistakes:
        raise UserError(*mistakes)
    return Trainers(tuple(trainers))


def _read(manifest: Path, mistakes: list[str]) -> Trainer:
    content = read_toml(manifest, "manifest of a trainer")
    mistakes += [f"{manifest}: unknown key {key}; there are {', '.join(sorted(_KEYS))}" for key in sorted(content.keys() - _KEYS)]
    versions, command = content.get("versions", []), content.get("command", [])
    if not isinstance(versions, list) or not versions or not all(isinstance(v, str) and _VERSION.fullmatch(v) for v in versions):
        mistakes.append(f'{manifest} versions: write a list of ids, such as versions = ["1"]; letters, digits, . _ -')
        versions = []
    name = content.get("name", manifest.parent.name if command else OUR_NAME)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        mistakes.append(f'{manifest} name: write owner/name, such as name = "me/my-trainer"')
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        mistakes.append(f'{manifest} command: write a list of words, such as command = ["python", "{{package}}/train.py", "{{output}}"]')
        command = []
    for word in command:
        for place in set(re.findall(r"\{(\w*)\}", word)) - set(_PLACES):
            mistakes.append(f"{manifest} command: there is no {{{place}}}; there are {', '.join(f'{{{known}}}' for known in _PLACES)}")
    inputs = content.get("inputs", {})
    if not isinstance(inputs, dict) or not all(isinstance(table, dict) for table in inputs.values()):
        mistakes.append(f"{manifest} inputs: write a table for each, such as [inputs.prompt]")
        inputs = {}
    if inputs and not command:
        mistakes.append(f"{manifest} inputs: without a command this names versions of ours, whose inputs are known; remove them")
    fields = tuple(_field(manifest, key, table, mistakes) for key, table in inputs.items())
    description = str(content.get("description", ""))
    return Trainer(name, tuple(versions), description, manifest.parent.resolve(), tuple(command), fields)


def _field(manifest: Path, name: str, table: Mapping[str, Any], mistakes: list[str]) -> Field:
    where = f"{manifest} [inputs.{name}]"
    mistakes += [f"{where}: unknown key {key}; there are {', '.join(sorted(_INPUT_KEYS))}" for key in sorted(table.keys() - _INPUT_KEYS)]
    least, most = (_limit(where, key, table, mistakes) for key in ("least", "most"))
    choices = table.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        mistakes.append(f'{where} choices: write a list of names, such as choices = ["small", "large"]')
        choices = []
    checks: dict[str, Check] = {
        "text": Text(0 if least is None else int(least), 1000 if most is None else int(most)),
        "url": ADDRESS,
        "integer": Whole(-(2**53) if least is None else int(least), 2**53 if most is None else int(most)),
        "number": Number(least, most),
        "boolean": Flag(),
        "choice": Choice(tuple(choices)),
    }
    kind = table.get("type", "text")
    if kind not in checks:
        mistakes.append(f"{where} type: this is one of {', '.join(checks)}")
        kind = "text"
    default = table.get("default", REQUIRED)
    if default is not REQUIRED:
        try:
            default = checks[kind].read(default)
        except ValueError as error:
            mistakes.append(f"{where} default: {error}")
    return Field(name, name, checks[kind], default, help=str(table.get("help", "")))


def _limit(where: str, key: str, table: Mapping[str, Any], mistakes: list[str]) -> float | None:
    value = table.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        mistakes.append(f"{where} {key}: this is a number")
        return None
    return value


def _filled(word: str, places: Mapping[str, Path]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: str(places[found[1]]), word)
