"""Finding the parts of a model in a Diffusers folder, a single file, or a file or folder with a VAE alone."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from library.errors import UserError
from library.families import keys_sd
from library.families.diffusers_folder import check_parts, read_config, read_part, weight_files
from library.families.keys_openclip import clip_name
from library.families.locate import locate
from library.families.single_file import FilePart
from library.families.source import ModelSource, PartSource, Place, part_source
from library.families.weight_files import Shapes, read_metadata, read_shapes

MODULE_NAMES: dict[str, Callable[[str], str]] = {  # a stored name -> the module's own
    "unet": str, "text_encoder": clip_name, "text_encoder_2": clip_name, "vae": keys_sd.modern_vae_name,
}  # fmt: skip
TOKENIZERS = ("tokenizer", "tokenizer_2")
CONFIG_KEY = "tadpole.config"  # of a single file's metadata: what the shapes do not tell of its modules, as JSON
V_PREDICTION_MARK = "v_pred"  # a tensor of this name marks models that predict v


def read_folder(folder: Path, parts: Mapping[str, FilePart], vae: str | None) -> ModelSource:
    """A model in Diffusers layout, with the VAE that `vae` names if it names one."""
    own = [name for name in parts if vae is None or name != "vae"]
    check_parts(folder, own)
    sources = {name: read_part(folder / name, MODULE_NAMES[name]) for name in own}
    if vae is not None:
        sources["vae"] = read_vae(vae, parts["vae"])
    tokenizers = {name: folder / name for name in TOKENIZERS if (folder / name).is_dir()}
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        return ModelSource(folder, sources, tokenizers)
    return ModelSource(folder, sources, tokenizers, read_config(scheduler).get("prediction_type"), scheduler)


def read_file(path: Path, shapes: Shapes, parts: Mapping[str, FilePart], title: str, vae: str | None) -> ModelSource:
    """A single file with these tensors, with the VAE that `vae` names if it names one. `title`: what the model is called."""
    metadata = read_metadata(path)
    told = _configs(path, metadata)
    sources = {}
    for name, part in parts.items():
        if name == "vae" and vae is not None:
            sources[name] = read_vae(vae, part)
            continue
        try:
            sources[name] = _file_part(path, shapes, part, told.get(name, {}))
        except (KeyError, StopIteration) as error:
            hint = ": name another with the option vae" if name == "vae" else ""
            raise UserError(f"{path}: the {name} of {title} is missing or not complete{hint} ({error})") from error
    return ModelSource(path, sources, prediction_type=_prediction_type(shapes, metadata))


def read_vae(name: str, part: FilePart) -> PartSource:
    """The VAE that the option `vae` names: a folder (of a VAE or a whole model), a file (LDM or Diffusers names) or a hub id."""
    path = locate(name, "vae")
    if path.is_dir():
        folder = path if (path / "config.json").is_file() else path / "vae"
        if not (folder / "config.json").is_file() or not weight_files(folder):
            raise UserError(f"vae: {path}: no VAE in Diffusers layout there (config.json and weights, or a folder vae with them)")
        return read_part(folder, MODULE_NAMES["vae"])
    shapes = read_shapes(path)
    if not any(key.startswith(part.prefix) for key in shapes):
        part = FilePart("", part.to_read, part.to_write, part.config)
    try:
        return _file_part(path, shapes, part, _configs(path, read_metadata(path)).get("vae", {}))
    except (KeyError, StopIteration) as error:
        raise UserError(f"vae: {path}: no Stable Diffusion VAE in this file ({error} is missing)") from error


def _file_part(path: Path, shapes: Shapes, part: FilePart, told: dict[str, Any]) -> PartSource:
    inside = {name[len(part.prefix) :]: shape for name, shape in shapes.items() if name.startswith(part.prefix)}
    config = part.config(inside) | told
    places = {
        name: Place(part.prefix + place.name, place.share, place.shares, place.transposed)
        for name, place in part.to_read(inside).items()
    }
    return part_source(config, (path,), places, shapes)


def _configs(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What a file that we wrote says of its modules, by part."""
    try:
        return json.loads(metadata.get(CONFIG_KEY, "{}"))
    except ValueError as error:
        raise UserError(f"{path}: its metadata {CONFIG_KEY} is damaged ({error}): copy the file again") from error


def _prediction_type(shapes: Shapes, metadata: Mapping[str, str]) -> str | None:
    """What a single file says of itself; most say nothing."""
    if V_PREDICTION_MARK in shapes:
        return "v_prediction"
    told = metadata.get("modelspec.prediction_type", "")
    if told in ("v", "v_prediction") or metadata.get("modelspec.architecture", "").endswith("-768-v"):
        return "v_prediction"
    return "epsilon" if told == "epsilon" else None
