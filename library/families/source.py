"""Where a model's weights lie, found out without reading any: each part's configuration, files and the tensors' names in them."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.families.weight_files import Shapes


@dataclass(frozen=True)
class PartSource:
    """One module of a model, not loaded yet."""

    config: dict[str, Any]  # what its class is built with
    files: tuple[Path, ...]
    names: dict[str, str]  # the module's name of a tensor -> its name in the files
    shapes: Shapes  # by the module's names, as stored

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def __str__(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)


@dataclass(frozen=True)
class ModelSource:
    """A whole model, not loaded yet."""

    path: Path  # the folder or the file
    parts: dict[str, PartSource]  # unet, text_encoder, vae
    tokenizer_folder: Path | None = None
    scheduler_config: dict[str, Any] = field(default_factory=dict)
