"""Which method a script trains with, and what can be checked of it before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from library.config.load import Settings
from library.data.records import PreparedDataset
from library.families.base import Family

if TYPE_CHECKING:
    import torch

    from library.methods.base import Method


def make_method(settings: Settings, seed: int, trained_dtype: torch.dtype) -> Method:
    """The method of the settings' script. trained_dtype: of the weights of networks."""
    from library.methods.adapter import AdapterMethod
    from library.methods.embedding import EmbeddingMethod

    checkpointing = settings.training.gradient_checkpointing
    if settings.script.method == "embedding":
        rate, per_layer = settings.optimizer.learning_rate, settings.script.per_layer
        return EmbeddingMethod(settings.embedding, rate, checkpointing, seed, per_layer)
    return AdapterMethod(settings.network, settings.optimizer, checkpointing, seed, trained_dtype)


def check_method(settings: Settings, family: Family, prepared: Sequence[PreparedDataset]) -> list[str]:
    """Of the method's own options, all that needs no weights. Returns what is worth saying."""
    if settings.embedding.token_string:
        from library.methods.embedding_checks import check_embedding  # imports torch, which takes seconds

        return check_embedding(settings.embedding, settings.script, len(family.adapter_prefixes) - 1, prepared)
    return []
