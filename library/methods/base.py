"""What the training loop and the savers ask of a method; a method is anything that has these members."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from library.types import Batch, Parts


class NotFiniteWeights(Exception):
    """Trained weights that are not all finite numbers were about to be written."""


class Method(Protocol):
    """What is trained, and what comes out of it. Lives as long as a run."""

    @property
    def trains_text_encoder(self) -> bool:
        """Whether gradients have to flow through the text encoders. Known once attached."""

    @property
    def base(self) -> Callable[[], AbstractContextManager[None]] | None:
        """Inside of what this makes, the model predicts what it did before training. None: that is not at hand."""

    def attach(self, parts: Parts, family_name: str) -> None:
        """Freezes the parts and adds or frees what is trained. The parts are on their device, in the dtype of frozen weights."""

    def modules(self) -> dict[str, nn.Module]:
        """The trained modules by name: their tensors are what a saved state holds."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer, each with `params`, `lr` and `name`."""

    def train(self) -> None:
        """Dropouts and gradient checkpointing on."""

    def eval(self) -> None:
        """Both off: for samples and validation."""

    def before_batch(self, batch: Batch) -> None:
        """Before the forward pass of every micro-step; between `eval` and `train`, of every batch that is only measured."""

    def after_step(self) -> dict[str, float]:
        """After every optimizer step; what it measured, by TensorBoard tag."""

    def has_nan(self) -> bool:
        """Whether any trained number is not finite."""

    def write(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        """Writes what was trained to `path`, whose suffix tells the format. Raises NotFiniteWeights instead of writing a NaN."""
