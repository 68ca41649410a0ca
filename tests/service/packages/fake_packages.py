"""Packages that a fake of cog's server serves, as versions of models."""
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from service.packages.card import card_of
from service.packages.cog_package import write_manifest
from service.packages.inputs import openapi_of
from service.packages.registry import NewVersion, Registered
from service.packages.templates import read_templates
from service.services import Services

FAKE = Path(__file__).with_name("fake_cog_server.py")


def fake_package(folder: Path, *, broken: bool = False, base: dict[str, str] | None = None) -> Path:
    """A folder that `python -m cog.server.http` serves although there is no cog."""
    server = folder / "cog" / "server"
    server.mkdir(parents=True)
    for package in (folder / "cog", server):
        (package / "__init__.py").touch()
    shutil.copyfile(FAKE, server / "http.py")
    if broken:
        (folder / "broken").touch()
    if base is not None:
        (folder / "weights").mkdir()
        (folder / "weights" / "base.json").write_text(json.dumps(base), encoding="utf-8")
    return folder


def register(services: Services, name: str = "frogs", label: str | None = None, template: str = "txt2img", **more: Any) -> Registered:
    """A fake package as a version of a model of the default project."""
    packages = services.settings.data_dir / "packages"
    draft = fake_package(packages / f"draft-{name.replace('/', '-')}-{label}", **more)
    version = write_manifest(draft, {"template": template, "training": f"{name} {label}"})
    draft.rename(packages / version)
    inputs = read_templates().known[template].inputs
    card = card_of(name, label or version, "Draws frogs.", template, inputs, {"instance_prompt": "a cjw <frog>", "resolution": 512})
    new = NewVersion(
        id=version, job_id=None, label=label, notes=None, template=template, cog_version="0.16.12",
        openapi_schema=openapi_of(inputs, name), card=card, folder=f"packages/{version}",
    )  # fmt: skip
    return services.registry.add(services.keys.project("default"), name, new)
