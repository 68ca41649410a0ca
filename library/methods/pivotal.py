"""The method that trains a network and the words that call it, together: pivotal tuning (arXiv 2106.05744, for GANs; then LoRA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.methods.adapter import AdapterMethod
from library.methods.embedding import EmbeddingMethod
from library.types import Batch, Parts


class PivotalMethod:
    """Two methods on one model. Their weights go to two files, which other programs load separately."""

    trains_text_encoder = True  # gradients pass through it on their way to the words

    def __init__(self, network: AdapterMethod, words: EmbeddingMethod):
        self._network = network
        self._words = words

    @property
    def base(self) -> Callable[[], AbstractContextManager[None]]:
        """Without the network. What holds no learned word is as it was before training."""
        return self._network.base

    def attach(self, parts: Parts, family_name: str) -> None:
        self._network.attach(parts, family_name)
        self._words.attach(parts, family_name)  # last, for attaching freezes all parts, and the vectors become a part of them

    def modules(self) -> dict[str, nn.Module]:
        return {**self._network.modules(), **self._words.modules()}

    @property
    def word_size(self) -> int:
        """How many numbers the vectors hold."""
        return sum(vectors.numel() for module in self._words.modules().values() for vectors in module.parameters())

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*self._network.parameter_groups(), *self._words.parameter_groups()]

    def train(self) -> None:
        self._network.train()
        self._words.train()

    def eval(self) -> None:
        self._network.eval()
        self._words.eval()

    def before_batch(self, batch: Batch) -> None:
        self._network.before_batch(batch)
        self._words.before_batch(batch)

    def after_step(self) -> dict[str, float]:
        return {**self._network.after_step(), **self._words.after_step()}

    def has_nan(self) -> bool:
        return self._network.has_nan() or self._words.has_nan()

    def write(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        """The network alone."""
        self._network.write(path, dtype, metadata)

    def write_words(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        """The vectors alone, as textual inversion does."""
        self._words.write(path, dtype, metadata)
