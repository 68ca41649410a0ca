"""Which run a state belongs to, and whether this run may go on from it."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.checkpoint.dataset_facts import DatasetIdentity
from library.checkpoint.hashes import model_name, short_model_hash
from library.config.settings import OPTIONS
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.settings import Settings

# A state means nothing under other values of these: its tensors or its place in the data would not fit.
FIXED_OPTIONS = {
    "data": ("paired_prior",),
    "training": ("gradient_accumulation_steps", "full_fp16", "full_bf16", "ema"),
    "network": (
        "network_module", "network_dim", "network_alpha", "network_args", "dim_from_weights",
        "network_train_unet_only", "network_train_text_encoder_only",
    ),
    "embedding": ("token_string", "num_vectors_per_token"),
    "optimizer": (
        "optimizer_type", "optimizer_args", "fused_backward_pass",
        "fused_optimizer_groups",
    ),
    "scheduler": ("lr_scheduler_type", "lr_scheduler_args"),
}  # fmt: skip


@dataclass(frozen=True)
class BaseModel:
    name: str  # as `model_name`: without its folders, so that the model may be moved
    short_hash: str | None  # None if it is not a single file


@dataclass(frozen=True)
class RunIdentity:
    """What a state says of its run, and what has to be the same to go on from it."""

    lineage: str  # the same for a run and all that resume it
    seed: int
    processes: int
    options: dict[str, Any]  # FIXED_OPTIONS by name
    base_model: BaseModel
    dataset: DatasetIdentity


def run_identity(settings: Settings, lineage: str, seed: int, processes: int, dataset: DatasetIdentity) -> RunIdentity:
    """The identity of the run that these settings describe. seed: the one in use, given or drawn."""
    options = {name: getattr(getattr(settings, topic), name) for topic, names in FIXED_OPTIONS.items() for name in names}
    return RunIdentity(lineage, seed, processes, options, base_model(settings.model.pretrained_model_name_or_path or ""), dataset)


def base_model(name_or_path: str) -> BaseModel:
    return BaseModel(model_name(name_or_path), short_model_hash(name_or_path))


def check_same_run(folder: Path, stored: RunIdentity, current: RunIdentity) -> list[str]:
    """Raises UserError with everything that keeps this run from going on from the state; returns what is merely worth saying."""
    where = f"in the state {folder}"
    mistakes = []
    pairs = {"seed": (stored.seed, current.seed), "--num_processes": (stored.processes, current.processes)}
    for name, value in current.options.items():  # states of before there was an option have its default
        pairs[name] = (_as_json(stored.options.get(name, OPTIONS[name].default)), _as_json(value))
    for name, (before, now) in pairs.items():
        if before != now:
            difference = f"{name} is {json.dumps(now)} here and {json.dumps(before)} {where}"
            mistakes.append(f"{difference}: {_remedy(name, before)}, or leave --resume out")
    mistakes += _dataset_mistakes(stored.dataset, current.dataset, where)
    notes = []
    if stored.base_model != current.base_model:
        text = f"the base model is {_describe(current.base_model)} here and {_describe(stored.base_model)} {where}"
        if _surely_different(stored.base_model, current.base_model):
            mistakes.append(f"{text}: name the same model, or leave --resume out")
        else:
            notes.append(text)
    if mistakes:
        raise UserError(*mistakes)
    return notes


def _dataset_mistakes(stored: DatasetIdentity, current: DatasetIdentity, where: str) -> list[str]:
    if stored.fingerprint == current.fingerprint:
        return []
    words = [("images", "images"), ("entries", "images x repeats"), ("batch_sizes", "as batch sizes")]
    changed = [f"{_plain(getattr(current, name))} {word} here, {_plain(getattr(stored, name))} {where}" for name, word in words
               if getattr(stored, name) != getattr(current, name)]  # fmt: skip
    detail = "; ".join(changed) or f"the same number of images as {where}, but other names, sizes, buckets or repeats"
    return [f"the data has changed ({detail}): restore it, or leave --resume out"]


def _surely_different(one: BaseModel, other: BaseModel) -> bool:
    if one.short_hash is not None and other.short_hash is not None:
        return one.short_hash != other.short_hash
    return one.name != other.name


def _describe(model: BaseModel) -> str:
    return f"{model.name} (hash {model.short_hash})" if model.short_hash else model.name


def _as_json(value: Any) -> Any:
    """The value as it comes back from a file: tuples are lists, 1.0 equals 1."""
    return json.loads(json.dumps(value))


def _remedy(name: str, before: Any) -> str:
    if before is None:
        return f"leave {name} out"
    return f"set {name} {before}" if name.startswith("--") else f"set {name} = {json.dumps(before)}"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
