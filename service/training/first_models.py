"""The list of base models that the first start writes: the tiny one that ships with the project, and how to name others."""

from __future__ import annotations

from pathlib import Path

from library.config.dump import toml_value

EMBEDDED = "tadpole/base"
_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "base"
_LIST = """\
# The base models that trainings may begin with, by the names that requests use. All about it: docs/service_training.md.

default = {name}  # of requests that name none

# A tiny model that ships with the project: it draws emoji of 64 pixels, and is there for trying things out.
[models.{name}]
path = {path}

# A model of your own: remove the "#" of these lines, and say where it is.
# [models."runwayml/stable-diffusion-v1-5"]
# path = "models/sd15.safetensors"  # or a folder in Diffusers layout; relative to this file
"""


def write_first_models(models_file: Path, folder: Path = _FOLDER) -> bool:
    """Whether the list was written: not where there is one, nor where the project is installed without its tiny model."""
    if models_file.exists() or not folder.is_dir():
        return False
    models_file.write_text(_LIST.format(name=toml_value(EMBEDDED), path=toml_value(folder.as_posix())), encoding="utf-8")
    return True
