"""The base models and VAEs that the operator registered by name in models.toml: what a request may name, and where each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.text_files import read_toml
from library.errors import UserError
from service.training.fields import BadInput, FieldProblem
from service.training.request import TrainingRequest

FAMILIES = ("sd_v1", "sd_v2", "sdxl")
_MODEL_KEYS = {"path", "family", "vae", "v_parameterization", "revisions"}


@dataclass(frozen=True)
class BaseModel:
    """A model that can be trained."""

    name: str
    path: Path
    family: str = "sd_v1"
    vae: str | None = None  # the registered name of the VAE that goes with it; None: its own
    v_parameterization: bool = False
    revisions: Mapping[str, Path] = field(default_factory=dict)  # "main" is `path` where it is not among them


@dataclass(frozen=True)
class ChosenBase:
    """What a request's names stand for."""

    model: BaseModel
    revision: str
    path: Path
    vae_name: str | None
    vae_path: Path | None


@dataclass(frozen=True)
class Models:
    """Everything in models.toml."""

    models: Mapping[str, BaseModel]
    vaes: Mapping[str, Path]
    default: str | None  # the model of requests that name none

    def choose(self, request: TrainingRequest) -> ChosenBase:
        """The files that the request's names stand for; BadInput if they stand for none."""
        problems = []
        name = request.model or self.default
        model = self.models.get(name) if name else None
        if model is None:
            wanted = f'"{request.model}" is not registered here' if request.model else "none is named, and this service has no default"
            problems.append(FieldProblem("model", f"{wanted}; {_listed(self.models)}"))
        path = None
        if model is not None:
            revisions = {"main": model.path, **model.revisions}
            path = revisions.get(request.revision)
            if path is None:
                message = f'"{request.revision}" of {model.name} is not registered here; {_listed(revisions)}'
                problems.append(FieldProblem("revision", message))
        vae = request.vae or (model.vae if model else None)
        if vae is not None and vae not in self.vaes:
            problems.append(FieldProblem("vae", f'"{vae}" is not registered here; {_listed(self.vaes)}'))
        if problems:
            raise BadInput(problems)
        assert model is not None and path is not None
        return ChosenBase(model, request.revision, path, vae, self.vaes[vae] if vae else None)


def read_models(path: Path) -> Models:
    """The operator's models.toml; UserError with every mistake in it. A file that is not there registers nothing."""
    if not path.exists():
        return Models({}, {}, None)
    content = read_toml(path, "list of base models")
    unknown = sorted(content.keys() - {"default", "models", "vaes"})
    mistakes = [f"{path}: unknown key {key}; write default, [models.NAME] or [vaes.NAME]" for key in unknown]
    vaes = {name: _path(path, f"vaes.{name}", table, {"path"}, mistakes) for name, table in _tables(path, content, "vaes", mistakes)}
    models = {}
    for name, table in _tables(path, content, "models", mistakes):
        models[name] = _model(path, name, table, mistakes)
        if models[name].vae not in (None, *vaes):
            mistakes.append(f'{path} [models."{name}"] vae: there is no [vaes."{models[name].vae}"]')
    default = content.get("default", next(iter(models), None))
    if default is not None and default not in models:
        mistakes.append(f'{path} default: there is no [models."{default}"]')
    if mistakes:
        raise UserError(*mistakes)
    return Models(models, vaes, default)


def _tables(path: Path, content: Mapping[str, Any], key: str, mistakes: list[str]) -> list[tuple[str, dict[str, Any]]]:
    tables = content.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        mistakes.append(f'{path} {key}: write a table for each, such as [{key}."owner/name"]')
        return []
    return list(tables.items())


def _model(path: Path, name: str, table: Mapping[str, Any], mistakes: list[str]) -> BaseModel:
    where = f'{path} [models."{name}"]'
    family = table.get("family", "sd_v1")
    if family not in FAMILIES:
        mistakes.append(f"{where} family: this is one of {', '.join(FAMILIES)}")
    if not isinstance(table.get("v_parameterization", False), bool):
        mistakes.append(f"{where} v_parameterization: this is true or false")
    revisions = table.get("revisions", {})
    if not isinstance(revisions, dict):
        mistakes.append(f'{where} revisions: write names and paths, such as {{ fp16 = "models/sd15-fp16" }}')
        revisions = {}
    return BaseModel(
        name=name,
        path=_path(path, f"models.{name}", table, _MODEL_KEYS, mistakes),
        family=family,
        vae=table.get("vae"),
        v_parameterization=table.get("v_parameterization", False),
        revisions={key: _existing(path, f"{where} revisions.{key}", value, mistakes) for key, value in revisions.items()},
    )


def _path(path: Path, key: str, table: Mapping[str, Any], known: set[str], mistakes: list[str]) -> Path:
    where = f"{path} [{key}]"
    mistakes += [f"{where}: unknown key {name}; there are {', '.join(sorted(known))}" for name in sorted(table.keys() - known)]
    return _existing(path, f"{where} path", table.get("path"), mistakes)


def _existing(path: Path, where: str, value: object, mistakes: list[str]) -> Path:
    """Where a file or folder is; relative paths are relative to the list."""
    if not isinstance(value, str) or not value:
        mistakes.append(f'{where}: name the file or folder, such as path = "models/sd15.safetensors"')
        return Path()
    found = (path.parent / value).resolve()
    if not found.exists():
        mistakes.append(f"{where}: {found} does not exist")
    return found


def _listed(names: Mapping[str, object]) -> str:
    return f"there are {', '.join(sorted(names))}" if names else "the operator registers them in models.toml"
