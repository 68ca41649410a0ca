"""The method that trains words and nothing else: textual inversion, with one vector a word or with one for each layer (XTI)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.config.options import EmbeddingOptions
from library.methods.base import NotFiniteWeights
from library.methods.embedding_file import read_vectors, tensors_to_save, write_vectors
from library.methods.freezing import enable_checkpointing, freeze, not_finite
from library.methods.new_words import NewWords
from library.types import Batch, Parts


class EmbeddingMethod:
    """Trains the vectors of `--token_string`; the model stays as it is."""

    trains_text_encoder = True  # gradients pass through it on their way to the vectors
    base = None  # a model without the word has nothing to say of captions that hold it

    def __init__(
        self, options: EmbeddingOptions, learning_rate: float, gradient_checkpointing: bool, seed: int, per_layer: bool = False
    ):
        self._options = options
        self._learning_rate = learning_rate
        self._gradient_checkpointing = gradient_checkpointing
        self._per_layer = per_layer
        self._words = NewWords(options, seed, per_layer)
        self._checkpointed: list[nn.Module] = []

    def attach(self, parts: Parts, family_name: str) -> None:
        freeze(parts)
        if self._gradient_checkpointing:
            self._checkpointed = enable_checkpointing([parts.unet, *parts.text_encoders])
        self._words.attach(parts, read_vectors(self._options, self._per_layer, len(parts.text_encoders)))

    def modules(self) -> dict[str, nn.Module]:
        return {"words": self._words.vectors}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self._words.vectors), "lr": self._learning_rate, "name": "words"}]

    def train(self) -> None:
        for module in self._checkpointed:
            module.training = True

    def eval(self) -> None:
        for module in self._checkpointed:
            module.training = False

    def before_batch(self, batch: Batch) -> None:
        """Nothing changes from batch to batch."""

    def after_step(self) -> dict[str, float]:
        lengths = torch.cat([vectors.detach().norm(dim=-1).flatten() for vectors in self._words.vectors])
        return {"norm/words": float(lengths.mean())}

    def has_nan(self) -> bool:
        return bool(not_finite(self._words.vectors, None))

    def write(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        tensors = tensors_to_save([vectors.detach().cpu() for vectors in self._words.vectors])
        tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise NotFiniteWeights("the learned vectors are not finite; nothing was written")
        write_vectors(path, tensors, metadata)
