"""Where a model's weights lie, found out without reading any: each part's configuration, files and the tensors' places in them."""
from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from library.families.weight_files import Shapes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where a module's tensor lies in a file: a tensor there, or one of several equal shares of its rows."""

    name: str  # in the file
    share: int = 0
    shares: int = 1
    transposed: bool = False
    as_convolution: bool = False  # a matrix that files hold as a 1x1 convolution

    def read(self, stored: Tensor) -> Tensor:
        """The module's tensor (but for dimensions of 1 at the end) out of the file's."""
        rows = stored.chunk(self.shares)[self.share] if self.shares > 1 else stored
        return rows.T if self.transposed else rows

    def shape_read(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what `read` gives."""
        shape = (stored[0] // self.shares, *stored[1:]) if self.shares > 1 else stored
        return shape[::-1] if self.transposed else shape


Places = dict[str, Place]  # by the module's name of a tensor


@dataclass(frozen=True)
class PartSource:
    """One module of a model, not loaded yet."""

    config: dict[str, Any]  # what its class is built with
    files: tuple[Path, ...]
    places: Places
    shapes: Shapes  # by the module's names
    mapped: bool = True  # into memory, while they are read: .safetensors files

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def __str__(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)


def part_source(config: dict[str, Any], files: tuple[Path, ...], places: Places, stored: Shapes) -> PartSource:
    """A part from its tensors' places and the shapes in the files."""
    return PartSource(config, files, places, {name: place.shape_read(stored[place.name]) for name, place in places.items()})


Layout = Literal["safetensors", "ckpt", "diffusers", "diffusers_safetensors"]  # what `--save_model_as` names


@dataclass(frozen=True)
class ModelSource:
    """A whole model, not loaded yet."""

    path: Path  # the folder or the file
    parts: dict[str, PartSource]  # unet, text_encoder, vae, ...: as Diffusers calls them
    tokenizer_folders: dict[str, Path] = field(default_factory=dict)  # tokenizer, tokenizer_2: those that the model has
    prediction_type: str | None = None  # epsilon, v_prediction: where the model says it
    scheduler_file: Path | None = None

    def parts_read(self, mapped: bool) -> dict[str, PartSource]:
        """The parts, for loading; whether from mapped files."""
        return {name: replace(part, mapped=mapped) for name, part in self.parts.items()}

    @property
    def layout(self) -> Layout:
        """The form that the model has."""
        if self.path.is_dir():
            return "diffusers_safetensors" if self.parts["unet"].files[0].suffix == ".safetensors" else "diffusers"
        return "safetensors" if self.path.suffix.lower() == ".safetensors" else "ckpt"


@dataclass(frozen=True)
class Trained:
    """What a training has done to a model, as far as saved files tell it."""

    parts: Collection[str] | None = None  # unet, text_encoder, ...: those that are no longer the checkpoint's; None: all
    epochs: int = 0
    steps: int = 0
    zero_terminal_snr: bool = False  # whether on the schedule that ends in pure noise


NOT_TRAINED = Trained()
