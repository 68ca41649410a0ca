"""The templates of packages: ours, and those that the operator put into a folder; each is a folder with predict.py and template.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.spelling import did_you_mean
from library.config.text_files import read_toml
from library.errors import UserError
from service.packages.inputs import inputs_of
from service.training.fields import BadInput, FieldProblem

MANIFEST, PREDICT = "template.toml", "predict.py"
OURS = Path(__file__).parent / "templates"
SHARED = OURS / "shared"  # what all packages have, unless the template has a file of that name
MODEL, LORA = "model", "lora"
USUAL = {"dreambooth": "txt2img", "lora": "lora"}  # by the method of a training
RENAMED = {"dockerignore": ".dockerignore"}  # so that it does not hide files of ours
_KEYS = {"weights", "controlnet", "description", "versions"}


@dataclass(frozen=True)
class Template:
    """How weights become a package."""

    name: str
    folder: Path
    weights: str  # what it draws with: a whole model, or a LoRA and the name of its base
    needs_controlnet: bool
    description: str
    versions: tuple[str, ...]  # further names that requests may use
    inputs: Mapping[str, Any]  # JSON schema

    def files(self) -> dict[str, Path]:
        """What lies in a package besides weights: its name there, and where it is now."""
        found = {path.name: path for path in SHARED.iterdir() if path.is_file()}
        for path in self.folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path != self.folder / MANIFEST:
                found[path.relative_to(self.folder).as_posix()] = path
        return {RENAMED.get(name, name): path for name, path in sorted(found.items())}


@dataclass(frozen=True)
class Templates:
    """All that there are, by name."""

    known: Mapping[str, Template] = field(default_factory=dict)

    def select(self, version: str | None, method: str) -> Template:
        """The one of this name or version, else the usual one of the method. BadInput names template_version."""
        wanted = (version or USUAL[method]).rpartition(":")[2]
        for template in self.known.values():
            if wanted == template.name or wanted in template.versions:
                return template
        message = f'"{wanted[:128]}" is no template here{did_you_mean(wanted, self.known)}; there are {", ".join(self.known)}'
        raise BadInput([FieldProblem("template_version", message)])


def read_templates(folder: Path | None = None) -> Templates:
    """Ours, and every folder in this one; one of the same name takes the place of ours. UserError with every mistake in them."""
    found: dict[str, Template] = {}
    mistakes: list[str] = []
    for place in (OURS, folder):
        for manifest in sorted(place.glob(f"*/{MANIFEST}")) if place is not None and place.is_dir() else ():
            try:
                found[manifest.parent.name] = _read(manifest)
            except UserError as error:
                mistakes += error.messages
    taken: dict[str, str] = {}
    for template in found.values():
        for version in (template.name, *template.versions):
            if version in taken:
                mistakes.append(f"{template.folder / MANIFEST} versions: {version} is that of {taken[version]}; give each its own")
            taken[version] = template.name
    if mistakes:
        raise UserError(*mistakes)
    return Templates(found)


def _read(manifest: Path) -> Template:
    content = read_toml(manifest, "manifest of a template")
    mistakes = [f"{manifest}: unknown key {key}{did_you_mean(key, _KEYS)}" for key in sorted(content.keys() - _KEYS)]
    weights = content.get("weights", MODEL)
    if weights not in (MODEL, LORA):
        mistakes.append(f'{manifest} weights: write "{MODEL}" or "{LORA}"')
    if not isinstance(content.get("controlnet", False), bool):
        mistakes.append(f"{manifest} controlnet: this is true or false")
    versions = content.get("versions", [])
    if not isinstance(versions, list) or not all(isinstance(version, str) and version for version in versions):
        mistakes.append(f'{manifest} versions: write a list of names, such as versions = ["1"]')
        versions = []
    source, inputs = manifest.with_name(PREDICT), {}
    if source.is_file():
        try:
            inputs = inputs_of(source.read_text(encoding="utf-8"), str(source))
        except UserError as error:
            mistakes += error.messages
    else:
        mistakes.append(f"{source}: there is no such file; it holds the class Predictor")
    if mistakes:
        raise UserError(*mistakes)
    return Template(
        name=manifest.parent.name, folder=manifest.parent.resolve(), weights=weights, needs_controlnet=content.get("controlnet", False),
        description=str(content.get("description", "")), versions=tuple(versions), inputs=inputs,
    )  # fmt: skip
