"""A model in Diffusers layout: model_index.json and one folder per part, each with its config.json and weights."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from library.config.text_files import read_json
from library.errors import UserError
from library.families.source import PartSource, Place, part_source
from library.families.weight_files import WEIGHT_SUFFIXES, Shapes, read_shapes

PART_NAMES = ("unet", "text_encoder", "text_encoder_2", "vae")
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
VARIANTS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")  # the first that is there is read


def read_config(path: Path) -> dict[str, Any]:
    """A configuration, which is a JSON object."""
    content = read_json(path, "configuration")
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object {{...}}")
    return content


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json; where there is none, the error says what the folder seems to be instead."""
    path = folder / "model_index.json"
    if path.is_file():
        return read_config(path)
    single = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in WEIGHT_SUFFIXES)
    hint = f": it holds {', '.join(single[:3])}: give the path of that file" if single else ""
    raise UserError(f"{folder}: not a model in Diffusers layout, model_index.json is missing{hint}")


def check_parts(folder: Path, parts: Iterable[str]) -> None:
    """UserError that lists everything the folder lacks."""
    missing = []
    for part in parts:
        if not (folder / part / "config.json").is_file():
            missing.append(f"{part}/config.json")
        if not weight_files(folder / part):
            missing.append(f"{part}/ weights (.safetensors or .bin)")
    if missing:
        raise UserError(f"{folder}: the model is not complete, missing: {', '.join(missing)}")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The file, or the pieces of the file, with a part's weights; empty if there is none."""
    for variant in VARIANTS:
        for stem in STEMS:
            path = folder / f"{stem}{variant}"
            if path.is_file():
                return (path,)
            index = _index_file(folder, stem, variant)
            if index.is_file():
                return tuple(folder / name for name in sorted(set(read_config(index).get("weight_map", {}).values())))
    return ()


def _index_file(folder: Path, stem: str, variant: str) -> Path:
    """Where weights in several pieces say what is in which: stem.safetensors.index.json or stem.safetensors.index.fp16.json."""
    if variant.startswith(".fp16"):
        return folder / f"{stem}{variant.removeprefix('.fp16')}.index.fp16.json"
    return folder / f"{stem}{variant}.index.json"


def read_part(folder: Path, module_name: Callable[[str], str]) -> PartSource:
    """A part's configuration and header; `module_name` turns a stored name into the module's own."""
    files = weight_files(folder)
    stored: Shapes = {}
    for file in files:
        stored |= read_shapes(file)
    places = {module_name(name): Place(name) for name in stored}
    return part_source(read_config(folder / "config.json"), files, places, stored)
