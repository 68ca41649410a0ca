"""Files of LoRA weights: reading, writing, and the rank and alpha of each adapter in them."""
from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.checkpoint.hashes import adapter_hashes
from library.errors import UserError

SHOWN = 3  # keys in a message


@dataclass(frozen=True)
class LoadReport:
    """Where a file and a network differ. Adapters that the file lacks keep the values they had."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        if not self.missing and not self.unexpected:
            return "every tensor loaded"
        parts = []
        if self.missing:
            parts.append(f"not in the file, left as they were: {shorten(self.missing)}")
        if self.unexpected:
            parts.append(f"in the file but not in the network, ignored: {shorten(self.unexpected)}")
        return "; ".join(parts)


def shorten(keys: tuple[str, ...] | list[str]) -> str:
    """The number of keys and the first few."""
    more = ", ..." if len(keys) > SHOWN else ""
    return f"{len(keys)} ({', '.join(keys[:SHOWN])}{more})"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickle if it has any other extension."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of network weights")
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as network weights ({reason}); give a whole .safetensors file") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: holds something else than network weights; give a file that train_network.py wrote")
    return weights


def write_weights(
    path: str | Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None, metadata: Mapping[str, str] | None
) -> None:
    """Writes tensors, cast to `dtype` if given. A .safetensors file also holds the metadata and the hashes of the tensors."""
    path = Path(path)
    saved = {key: value.detach().to("cpu", dtype or value.dtype).contiguous() for key, value in tensors.items()}
    if path.suffix != ".safetensors":
        torch.save(saved, path)
        return
    texts = dict(metadata or {})
    save_file(saved, path, texts | adapter_hashes(saved, texts))


def projections_of(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The two weights of one adapter, under their names within it."""
    keys = ("lora_down.weight", "lora_up.weight")
    return {key: weights[f"{name}.{key}"] for key in keys if f"{name}.{key}" in weights}


def ranks_and_alphas(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, float]]:
    """Rank and alpha of each adapter by its name; alpha is the rank where the file has none."""
    found = {}
    for key, value in weights.items():
        name, _, rest = key.partition(".")
        if rest == "lora_down.weight":
            rank = len(value)
            alpha = weights.get(f"{name}.alpha")
            found[name] = (rank, float(alpha) if alpha is not None else float(rank))
    return found


def linear_ranks(shapes: Mapping[str, tuple[int, ...]]) -> set[int]:
    """The ranks of the adapters of linear layers and 1x1 convolutions, from the names and shapes of a file's tensors."""
    return {
        shape[0]
        for name, shape in shapes.items()
        if name.startswith("lora_") and name.endswith(".lora_down.weight") and set(shape[2:]) <= {1}
    }
