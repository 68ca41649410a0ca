"""A model as one file, under the names that the original has."""
from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.checkpoint.weights_file import Outgoing, outgoing, write_pickle, write_safetensors
from library.families.clip import ClipEncoder
from library.families.reading import CONFIG_KEY
from library.families.single_file import FilePart
from library.families.source import NOT_TRAINED, ModelSource, Place, Places, Trained
from library.families.weight_files import Shapes, read_beside, read_shapes, stored_tensors, tensor_reader

UNTOLD_BY_A_TEXT_ENCODER = ("num_attention_heads", "hidden_act", "layer_norm_eps")
NEVER_NEEDED = ("sample_size",)  # of a configuration, to build the module

Tensors = dict[str, Outgoing]  # by name in the file


@dataclass(frozen=True)
class Model:
    """What is saved: the modules by the names of their parts, and where they came from."""

    modules: Mapping[str, nn.Module]  # unet, text_encoder, ..., vae
    parts: Mapping[str, FilePart]
    source: ModelSource | None  # None: made and not loaded
    trained: Trained = NOT_TRAINED
    invented: Callable[[Tensors], Tensors] = lambda tensors: {}  # what files have and modules have not

    @property
    def original(self) -> Path | None:
        """The single file that the model came from, if it still is there."""
        path = self.source.path if self.source else None
        return path if path is not None and path.is_file() else None

    def state(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of a part: those in memory, or as the source has them, for memory may hold a frozen part in fewer bits."""
        own = self.modules[name].state_dict()
        source = self.source.parts.get(name) if self.source else None
        parts = self.trained.parts
        if parts is None or name in parts or source is None or not all(file.is_file() for file in source.files):
            return own
        stored = dict(stored_tensors(source.files, {source.places[key].name for key in own}))
        return {key: source.places[key].read(stored[source.places[key].name]).reshape(own[key].shape) for key in own}


def save_file(model: Model, path: Path, as_pickle: bool, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors or .ckpt file. A .ckpt counts epochs and steps."""
    tensors = single_file_tensors(model, dtype)
    untold = untold_configs(model, tensors)
    told = {CONFIG_KEY: json.dumps(untold)} if untold else {}
    if not as_pickle:
        write_safetensors(path, tensors, {**metadata, **told})
        return
    before = read_beside(model.original) if model.original and model.original.suffix != ".safetensors" else {}
    more = {"epoch": model.trained.epochs, "global_step": model.trained.steps}
    counters = {name: int(before.get(name) or 0) + count for name, count in more.items()}
    write_pickle(path, {"state_dict": tensors, **counters, **({"metadata": told} if told else {})})


def single_file_tensors(model: Model, dtype: torch.dtype | None) -> Tensors:
    """All tensors of the file. What the original holds beside the model stays as it is there."""
    stored = read_shapes(model.original) if model.original else {}
    tensors: Tensors = {}
    for name in model.modules:
        state = model.state(name)
        tensors |= _placed(state, _places(model, name, state), stored, dtype)
    if model.original is None:
        return tensors | model.invented(tensors)
    read = tensor_reader(model.original)
    for name in stored:
        if name not in tensors:
            kept = read(name)
            tensors[name] = Outgoing(tuple(kept.shape), kept.dtype, partial(read, name))
    return tensors


def _places(model: Model, name: str, state: Mapping[str, Tensor]) -> Places:
    """Where the part's tensors go: to where they were read from, or where such files have them."""
    part = model.parts[name]
    source = model.source.parts.get(name) if model.source else None
    if source is not None and source.files == (model.original,):
        return source.places
    return {
        key: Place(part.prefix + place.name, place.share, place.shares, place.transposed, place.as_convolution)
        for key, place in part.to_write(state).items()
    }


def _placed(state: Mapping[str, Tensor], places: Places, stored: Shapes, dtype: torch.dtype | None) -> Tensors:
    """The file's tensors of one module. `stored`: the shapes in the original file, which hold."""
    shares: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        place = places[name]
        shares.setdefault(place.name, {})[place.share] = tensor.T if place.transposed else tensor
    tensors = {}
    for place in {place.name: place for name, place in places.items() if name in state}.values():
        pieces = [shares[place.name][share] for share in range(place.shares)]
        first = outgoing(pieces[0], dtype)
        shape = (first.shape[0] * place.shares, *first.shape[1:]) if place.shares > 1 else first.shape
        shape = (*shape, 1, 1) if place.as_convolution else shape
        before = stored.get(place.name, shape)
        same_size = torch.Size(before).numel() == torch.Size(shape).numel()
        tensors[place.name] = Outgoing(before if same_size else shape, first.dtype, partial(_joined, pieces))
    return tensors


def _joined(pieces: list[Tensor]) -> Tensor:
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def untold_configs(model: Model, tensors: Tensors) -> dict[str, dict[str, Any]]:
    """What a reader of the file could not guess of the modules: nothing for models like the released ones."""
    untold = {}
    for name, part in model.parts.items():
        inside = {key[len(part.prefix) :]: each.shape for key, each in tensors.items() if key.startswith(part.prefix)}
        guessed, actual = part.config(inside), _config(model.modules[name])
        differing = {
            key: _plain(value)
            for key, value in actual.items()
            if key not in NEVER_NEEDED and _plain(value) != _plain(guessed.get(key, _default(model.modules[name], key)))
        }
        if differing:
            untold[name] = differing
    return untold


def _config(module: nn.Module) -> dict[str, Any]:
    """What the module's class was given, as far as it shapes the module."""
    if isinstance(module, ClipEncoder):
        config: Any = module.text_model.config
        return {key: getattr(config, key) for key in UNTOLD_BY_A_TEXT_ENCODER}
    known = inspect.signature(type(module).__init__).parameters
    own: Any = module
    return {key: value for key, value in own.config.items() if key in known}


def _default(module: nn.Module, key: str) -> Any:
    if isinstance(module, ClipEncoder):
        return getattr(type(module.text_model.config)(), key)
    return inspect.signature(type(module).__init__).parameters[key].default


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
