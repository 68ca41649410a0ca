"""Builds packages: folders that cog serves, with a manifest of every file, whose SHA-256 is the id of the version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.jobs.stages import Stopped
from service.packages.templates import LORA, Template

MANIFEST, INPUTS = "manifest.json", "inputs.json"
COG_VERSION = "0.16.12"  # as in templates/shared/requirements.txt
READ_AT_ONCE = 1 << 20  # bytes
FINISHED = (".json", ".safetensors", ".txt", ".model", ".bin")  # of a folder in Diffusers layout


class CannotBuild(Exception):
    """These weights do not go with this template: one line for the client."""


@dataclass(frozen=True)
class Ingredients:
    """What goes into a package besides its template."""

    weights: Path  # a folder in Diffusers layout, or the file of a LoRA
    training: str  # the job's id: two trainings are two versions, whatever came of them
    base: Mapping[str, str] = field(default_factory=dict)  # of a LoRA: {"model": its name, "revision": ...}
    controlnet: Path | None = None  # a folder in Diffusers layout


@dataclass(frozen=True)
class Package:
    """A package as it lies on the disk."""

    version_id: str
    folder: Path


def build(template: Template, ingredients: Ingredients, packages: Path, should_stop: Callable[[], bool]) -> Package:
    """The package among the others in `packages`, in a folder of its id; the one that is there if it was built before."""
    check(template, ingredients)
    draft = remove_draft(packages, ingredients.training)
    draft.mkdir(parents=True, mode=0o755)
    try:
        version_id = _put_together(template, ingredients, draft, should_stop)
    except BaseException:
        remove_draft(packages, ingredients.training)
        raise
    folder = packages / version_id
    if folder.exists():
        shutil.rmtree(draft)
    else:
        draft.rename(folder)
    return Package(version_id, folder)


def remove_draft(packages: Path, training: str) -> Path:
    """Where the package of a training is put together; nothing is left there."""
    draft = packages / f".draft-{training}"
    shutil.rmtree(draft, ignore_errors=True)
    return draft


def check(template: Template, ingredients: Ingredients) -> None:
    """CannotBuild where these do not go together."""
    is_model = ingredients.weights.is_dir()
    if template.weights == LORA and is_model:
        raise CannotBuild(f"the template {template.name} is for LoRAs, and a whole model was trained")
    if template.weights != LORA and not is_model:
        raise CannotBuild(f"the template {template.name} is for whole models in Diffusers layout, and one file was trained")
    if template.needs_controlnet and (ingredients.controlnet is None or not (ingredients.controlnet / "config.json").is_file()):
        raise CannotBuild(f"the template {template.name} needs a ControlNet, and the operator has named none (setting controlnet)")


def write_manifest(folder: Path, facts: Mapping[str, str]) -> str:
    """Say what lies in the folder; the SHA-256 of what is written, in hex."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    listed = [
        {"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": digest(path)}
        for path in files
    ]  # fmt: skip
    listed.sort(key=lambda file: str(file["path"]))
    return hashlib.sha256(_write(folder / MANIFEST, {**facts, "files": listed})).hexdigest()


def changes(folder: Path) -> list[str]:
    """The files of a package that are not as its manifest has them; of a whole one: none."""
    told = {file["path"]: file["sha256"] for file in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST}
    return sorted(name for name in told.keys() | found.keys() if name not in found or told.get(name) != digest(found[name]))


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_AT_ONCE):
            found.update(block)
    return found.hexdigest()


def _put_together(template: Template, ingredients: Ingredients, draft: Path, should_stop: Callable[[], bool]) -> str:
    """The id of the version that lies in `draft` then."""
    for name, source in _contents(template, ingredients):
        if should_stop():
            raise Stopped
        _put(source, draft / name)
    _write(draft / INPUTS, template.inputs)
    if template.weights == LORA:
        _write(draft / "weights" / "base.json", ingredients.base)
    return write_manifest(draft, {"template": template.name, "training": ingredients.training})


def _contents(template: Template, ingredients: Ingredients) -> list[tuple[str, Path]]:
    """Every file that is copied, under its name in the package."""
    found = list(template.files().items())
    if template.weights == LORA:
        found.append(("weights/lora.safetensors", ingredients.weights))
    else:
        found += _tree("weights", ingredients.weights)
    if template.needs_controlnet and ingredients.controlnet is not None:
        found += _tree("controlnet", ingredients.controlnet)
    return found


def _tree(name: str, folder: Path) -> list[tuple[str, Path]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in FINISHED]
    return [(f"{name}/{path.relative_to(folder).as_posix()}", path) for path in files]


def _put(source: Path, destination: Path) -> None:
    """Weights are large: where the disk allows it, both names stand for the same bytes. Templates may be edited, and are copied."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".safetensors":
        try:
            os.link(source, destination)
            return
        except OSError:
            pass
    shutil.copyfile(source, destination)


def _write(path: Path, content: Mapping[str, Any]) -> bytes:
    text = (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    path.write_bytes(text)
    return text
