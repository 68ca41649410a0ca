"""How the parts of a model are called in single files, for reading and for writing."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from library.families import configs_sd, keys_sd
from library.families.keys_openclip import clip_name, layer_count, openclip_places, openclip_text_names
from library.families.source import Place, Places
from library.families.weight_files import Shapes

ToRead = Callable[[Shapes], Places]  # from the names in the file
ToWrite = Callable[[Iterable[str]], Places]  # from the module's names
ToConfig = Callable[[Shapes], dict[str, Any]]  # from the names in the file; KeyError or StopIteration: this is no such part


@dataclass(frozen=True)
class FilePart:
    """A part in a single file: what its names begin with there, how they go on, what their shapes tell of the module."""

    prefix: str
    to_read: ToRead
    to_write: ToWrite
    config: ToConfig


def unet_part() -> FilePart:
    return FilePart(keys_sd.UNET_PREFIX, _read_unet, _write_unet, configs_sd.unet_config)


def vae_part(latent_scale: float) -> FilePart:
    return FilePart(keys_sd.VAE_PREFIX, _read_vae, _write_vae, partial(_vae_config, latent_scale))


def clip_part(prefix: str) -> FilePart:
    """A text encoder under the names of transformers."""

    def read(stored: Shapes) -> Places:
        return {clip_name(name): Place(name) for name in stored}

    def write(names: Iterable[str]) -> Places:
        return {name: Place(name) for name in names}

    def config(stored: Shapes) -> dict[str, Any]:
        return configs_sd.text_config({clip_name(name): shape for name, shape in stored.items()}, "quick_gelu")

    return FilePart(prefix, read, write, config)


def openclip_part(prefix: str, unused_layers: int, with_projection: bool) -> FilePart:
    """A text encoder under the names of OpenCLIP; of the file's layers the last few may be of no use to the model."""

    def read(stored: Shapes) -> Places:
        places = openclip_places(openclip_text_names(layer_count(stored) - unused_layers, with_projection))
        return {name: place for name, place in places.items() if place.name in stored}

    def config(stored: Shapes) -> dict[str, Any]:
        shapes = {name: place.shape_read(stored[place.name]) for name, place in read(stored).items()}
        return configs_sd.text_config(shapes, "gelu")

    return FilePart(prefix, read, openclip_places, config)


def _read_unet(stored: Shapes) -> Places:
    return _translated(stored, keys_sd.unet_table(keys_sd.ldm_unet_layout(stored)))


def _write_unet(names: Iterable[str]) -> Places:
    known = list(names)
    table = keys_sd.inverted(keys_sd.unet_table(keys_sd.diffusers_unet_layout(known)))
    return {name: Place(keys_sd.must_translate(name, table)) for name in known}


def _read_vae(stored: Shapes) -> Places:
    """A VAE alone also comes under Diffusers' names."""
    if _has_diffusers_names(stored):
        return {keys_sd.modern_vae_name(name): Place(name) for name in stored}
    return _translated(stored, keys_sd.ldm_vae_table(stored))


def _write_vae(names: Iterable[str]) -> Places:
    known = list(names)
    table = keys_sd.inverted(keys_sd.diffusers_vae_table(known))
    return {
        name: Place(keys_sd.must_translate(name, table), as_convolution=keys_sd.is_vae_attention_matrix(name)) for name in known
    }


def _vae_config(latent_scale: float, stored: Shapes) -> dict[str, Any]:
    ldm = stored
    if _has_diffusers_names(stored):
        modern = {keys_sd.modern_vae_name(name): shape for name, shape in stored.items()}
        table = keys_sd.inverted(keys_sd.diffusers_vae_table(modern))
        ldm = {old: shape for name, shape in modern.items() if (old := keys_sd.translated(name, table)) is not None}
    return {**configs_sd.vae_config(ldm), "scaling_factor": latent_scale}


def _has_diffusers_names(stored: Shapes) -> bool:
    return "encoder.down_blocks.0.resnets.0.conv1.weight" in stored


def _translated(stored: Shapes, table: Mapping[str, str]) -> Places:
    return {new: Place(old) for old in stored if (new := keys_sd.translated(old, table)) is not None}
