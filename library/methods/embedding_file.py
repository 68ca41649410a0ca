"""Files of learned vectors: what they hold for each family, and reading those of earlier trainings and of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from library.config.options import EmbeddingOptions
from library.errors import UserError
from library.families.weight_files import Shapes, read_shapes, stored_tensors
from library.methods.new_words import LAYERS

ONE_ENCODER = ("emb_params",)
TWO_ENCODERS = ("clip_l", "clip_g")


def tensors_to_save(vectors: Sequence[Tensor]) -> dict[str, Tensor]:
    """By name, from [layers, words, d] for each text encoder."""
    if len(vectors[0]) > 1:
        return {name: vectors[0][number].contiguous() for number, name in enumerate(LAYERS)}
    names = ONE_ENCODER if len(vectors) == 1 else TWO_ENCODERS
    return {name: encoder[0] for name, encoder in zip(names, vectors, strict=True)}


def write_vectors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """By the suffix: safetensors with the metadata, or a pickled table of tensors."""
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path, dict(metadata))
    else:
        torch.save(dict(tensors), path)


def check_weights(options: EmbeddingOptions, per_layer: bool, encoder_count: int) -> None:
    """UserError if the file of `--weights` cannot be what this training begins with. Reads its header only."""
    if not options.weights:
        return
    path = Path(options.weights)
    shapes = read_shapes(path)
    words = {_word_count(shapes[name]) for name in _names(path, shapes, per_layer, encoder_count) if name}
    if words != {options.num_vectors_per_token}:
        found = " and ".join(map(str, sorted(words)))
        raise UserError(
            f"num_vectors_per_token = {options.num_vectors_per_token}: {path} (weights) holds {found} vectors; "
            f"write num_vectors_per_token = {max(words)}"
        )


def read_vectors(options: EmbeddingOptions, per_layer: bool, encoder_count: int) -> list[Tensor | None]:
    """[layers, words, d] float32 for each text encoder; None for one that the file, if there is one, has nothing for."""
    if not options.weights:
        return [None] * encoder_count
    path = Path(options.weights)
    names = _names(path, read_shapes(path), per_layer, encoder_count)
    tensors = dict(stored_tensors((path,), [name for name in names if name]))
    found = [tensors[name].float() if name else None for name in names]
    matrices = [tensor[None] if tensor is not None and tensor.ndim == 1 else tensor for tensor in found]
    if per_layer:
        return [torch.stack([matrix for matrix in matrices if matrix is not None])]
    return [None if matrix is None else matrix[None] for matrix in matrices]


def _names(path: Path, shapes: Shapes, per_layer: bool, encoder_count: int) -> list[str | None]:
    """The tensors to take: those of all layers, or one for each encoder."""
    where = f"weights = {path}"
    if per_layer:
        if missing := [name for name in LAYERS if name not in shapes]:
            raise UserError(f"{where}: has no vectors named {', '.join(missing)}; it is not from train_textual_inversion_XTI.py")
        return list(LAYERS)
    if encoder_count > 1:
        names = [name if name in shapes else None for name in TWO_ENCODERS]
        if not any(names):
            raise UserError(f"{where}: has neither clip_l nor clip_g; it is not for Stable Diffusion XL")
        return names
    if any(name in shapes for name in (*TWO_ENCODERS, *LAYERS)):
        raise UserError(f"{where}: these vectors are not for one text encoder; they are from a model of another kind or from XTI")
    name = next((name for name in (*ONE_ENCODER, *shapes) if name in shapes), None)  # other programs use names of their own
    if name is None or len(shapes[name]) not in (1, 2):
        raise UserError(f"{where}: there are no vectors of words in it")
    return [name]


def _word_count(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) == 1 else shape[0]
