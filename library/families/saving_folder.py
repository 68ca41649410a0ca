"""A model as a folder in Diffusers layout, which the pipelines of that library load."""
from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.checkpoint.weights_file import outgoing, write_pickle, write_safetensors
from library.families.clip import ClipEncoder
from library.families.diffusers_folder import read_config
from library.families.saving_file import Model, Tensors
from library.families.tokenizers import VOCABULARY_FOLDER

FORMAT = {"format": "pt"}  # without it transformers loads no safetensors file
SPECIAL_TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class FolderFacts:
    """What a family's folders say besides the modules."""

    index: Mapping[str, Any]  # model_index.json, but for the version
    scheduler: Mapping[str, Any]  # scheduler_config.json, where the model had none
    schedule: Mapping[str, Any]  # what the training decides of it
    padding: Mapping[str, str | None]  # tokenizer, tokenizer_2: the padding token where it is not the end of the text


def save_folder(model: Model, folder: Path, safe: bool, dtype: torch.dtype | None, facts: FolderFacts) -> None:
    """Fills `folder`. `safe`: with .safetensors files, not .bin."""
    import diffusers

    folder.mkdir(parents=True, exist_ok=True)
    for name, module in model.modules.items():
        tensors = {key: outgoing(tensor, dtype) for key, tensor in model.state(name).items()}
        _save_module(module, tensors, folder / name, safe)
    own = model.source.tokenizer_folders if model.source else {}
    for name, padding in facts.padding.items():
        _save_tokenizer(own.get(name), folder / name, padding)
    scheduler = _save_scheduler(model, folder / "scheduler", facts)
    index = {**facts.index, "scheduler": ["diffusers", scheduler], "_diffusers_version": diffusers.__version__}
    _write_json(folder / "model_index.json", index)


def _save_module(module: nn.Module, tensors: Tensors, folder: Path, safe: bool) -> None:
    folder.mkdir()
    stem, pickled_stem = "diffusion_pytorch_model", "diffusion_pytorch_model"
    if isinstance(module, ClipEncoder):
        stem, pickled_stem = "model", "pytorch_model"
        _write_json(folder / "config.json", _text_config(module, next(iter(tensors.values())).dtype))
    else:
        of_diffusers: Any = module
        of_diffusers.save_config(folder)
    if safe:
        write_safetensors(folder / f"{stem}.safetensors", tensors, FORMAT)
    else:
        write_pickle(folder / f"{pickled_stem}.bin", tensors)


def _text_config(encoder: ClipEncoder, dtype: torch.dtype) -> dict[str, Any]:
    """Names of older and newer versions of transformers for the dtype: both read it."""
    name = str(dtype).removeprefix("torch.")
    return {
        **encoder.text_model.config.to_diff_dict(),
        "architectures": [encoder.transformers_class],
        "torch_dtype": name,
        "dtype": name,
    }


def _save_tokenizer(own: Path | None, folder: Path, padding: str | None) -> None:
    if own is not None and own.is_dir():
        shutil.copytree(own, folder)
        return
    shutil.copytree(VOCABULARY_FOLDER, folder)
    for name in SPECIAL_TOKEN_FILES if padding else ():
        path = folder / name
        _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "pad_token": padding})


def _save_scheduler(model: Model, folder: Path, facts: FolderFacts) -> str:
    """The model's own, with what the training decided; returns its class."""
    import diffusers

    folder.mkdir()
    own = model.source.scheduler_file if model.source else None
    content = {"_class_name": facts.scheduler["_class_name"]}
    content |= read_config(own) if own is not None and own.is_file() else facts.scheduler
    known = inspect.signature(getattr(diffusers, content["_class_name"], object)).parameters
    if not facts.schedule.keys() <= known.keys():  # it would sample on another schedule, with no more than a warning
        content["_class_name"] = facts.scheduler["_class_name"]
    _write_json(folder / "scheduler_config.json", {**content, **facts.schedule})
    return content["_class_name"]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
