"""Finding the parts of Stable Diffusion in a Diffusers folder, a single file, or a file or folder with a VAE alone."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from library.errors import UserError
from library.families import configs_sd, keys_sd
from library.families.diffusers_folder import check_parts, read_config, read_part, weight_files
from library.families.locate import locate
from library.families.source import ModelSource, PartSource
from library.families.weight_files import Shapes, read_shapes

PARTS = ("unet", "text_encoder", "vae")


def read_folder(folder: Path, vae: str | None) -> ModelSource:
    """A model in Diffusers layout, with the VAE that `vae` names if it names one."""
    check_parts(folder, PARTS if vae is None else PARTS[:2])
    parts = {
        "unet": read_part(folder / "unet", str),
        "text_encoder": read_part(folder / "text_encoder", clip_name),
        "vae": read_part(folder / "vae", keys_sd.modern_vae_name) if vae is None else read_vae(vae),
    }
    tokenizer, scheduler = folder / "tokenizer", folder / "scheduler" / "scheduler_config.json"
    return ModelSource(
        folder, parts, tokenizer if tokenizer.is_dir() else None, read_config(scheduler) if scheduler.is_file() else {}
    )


def read_file(path: Path, shapes: Shapes, vae: str | None) -> ModelSource:
    """A single file with LDM names, with the VAE that `vae` names if it names one."""
    unet = below(shapes, keys_sd.UNET_PREFIX)
    unet_table = keys_sd.unet_table(keys_sd.ldm_unet_layout(unet))
    readers: dict[str, Callable[[], PartSource]] = {
        "unet": lambda: _part(path, unet, keys_sd.UNET_PREFIX, configs_sd.unet_config, unet_table),
        "text_encoder": lambda: _text_part(path, below(shapes, keys_sd.TEXT_PREFIX)),
        "vae": lambda: _vae_part(path, below(shapes, keys_sd.VAE_PREFIX), keys_sd.VAE_PREFIX) if vae is None else read_vae(vae),
    }
    parts = {}
    for name, reader in readers.items():
        try:
            parts[name] = reader()
        except (KeyError, StopIteration) as error:
            hint = ": name another with the option vae" if name == "vae" else ""
            raise UserError(f"{path}: the {name} of Stable Diffusion 1.x is missing or not complete{hint} ({error})") from error
    return ModelSource(path, parts)


def read_vae(name: str) -> PartSource:
    """The VAE that the option `vae` names: a folder (of a VAE or a whole model), a file (LDM or Diffusers names) or a hub id."""
    path = locate(name, "vae")
    if path.is_dir():
        folder = path if (path / "config.json").is_file() else path / "vae"
        if not (folder / "config.json").is_file() or not weight_files(folder):
            raise UserError(f"vae: {path}: no VAE in Diffusers layout there (config.json and weights, or a folder vae with them)")
        return read_part(folder, keys_sd.modern_vae_name)
    shapes = read_shapes(path)
    prefix = keys_sd.VAE_PREFIX if any(key.startswith(keys_sd.VAE_PREFIX) for key in shapes) else ""
    try:
        return _vae_part(path, below(shapes, prefix), prefix)
    except (KeyError, StopIteration) as error:
        raise UserError(f"vae: {path}: no Stable Diffusion VAE in this file ({error} is missing)") from error


def below(shapes: Shapes, prefix: str) -> Shapes:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    return {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}


def clip_name(name: str) -> str:
    """transformers before version 5 stored the text model's tensors under `text_model.`."""
    return name.removeprefix("text_model.")


def _part(
    path: Path, shapes: Shapes, prefix: str, config: Callable[[Shapes], dict[str, Any]], table: Mapping[str, str]
) -> PartSource:
    names = {new: old for old in shapes if (new := keys_sd.translated(old, table)) is not None}
    return _named(path, shapes, prefix, config(shapes), names)


def _text_part(path: Path, shapes: Shapes) -> PartSource:
    by_name = {clip_name(name): shape for name, shape in shapes.items()}
    names = {clip_name(name): keys_sd.TEXT_PREFIX + name for name in shapes}
    return PartSource(configs_sd.text_config(by_name), (path,), names, by_name)


def _vae_part(path: Path, shapes: Shapes, prefix: str) -> PartSource:
    if "encoder.down_blocks.0.resnets.0.conv1.weight" not in shapes:
        return _part(path, shapes, prefix, configs_sd.vae_config, keys_sd.ldm_vae_table(shapes))
    modern = {keys_sd.modern_vae_name(name): name for name in shapes}
    table = keys_sd.inverted(keys_sd.diffusers_vae_table(modern))
    ldm = {old: shapes[name] for new, name in modern.items() if (old := keys_sd.translated(new, table)) is not None}
    return _named(path, shapes, prefix, configs_sd.vae_config(ldm), modern)


def _named(path: Path, shapes: Shapes, prefix: str, config: dict[str, Any], names: dict[str, str]) -> PartSource:
    """`names`: the module's names -> those in `shapes`, which lack the prefix that they have in the file."""
    stored = {new: prefix + old for new, old in names.items()}
    return PartSource(config, (path,), stored, {new: shapes[old] for new, old in names.items()})
