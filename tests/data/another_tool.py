"""Latent caches as sd-scripts writes them, made by hand with plain numpy."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from library.data.cache import LatentCache
from library.data.cache_fill import fill_cache
from library.data.pixels import crop_ltrb, fixed_pixels, model_input
from library.types import Posterior
from tests.data.tiny_datasets import cache_settings
from tests.data.tiny_datasets import encode as encode_vaguely

Arrays = dict[str, np.ndarray]
NAMES: dict[str, Callable[[Path, tuple[int, int]], Path]] = {  # sd-scripts: of an image and its size
    "train_network": lambda image, size: image.with_name(f"{image.stem}_{size[0]:04d}x{size[1]:04d}_sd.npz"),
    "train_db": lambda image, size: image.with_name(f"{image.stem}_{size[0]:04d}x{size[1]:04d}_sdxl.npz"),
    "older": lambda image, size: image.with_suffix(".npz"),
}


def encode(images: torch.Tensor, paths: Sequence[str] = ()) -> Posterior:
    """Stands in for a VAE that is as sure of itself as real ones are."""
    posterior = encode_vaguely(images)
    return Posterior(posterior.mean, posterior.std / 50)


def arrays_of(record, subset, seed: int = 1) -> Arrays:
    """What sd-scripts keeps of an image: a sample of the posterior, the sizes, and what the settings ask for."""
    pixels = fixed_pixels(record, subset)
    generator = torch.Generator().manual_seed(seed)
    arrays = {"original_size": np.array(record.size), "crop_ltrb": np.array(crop_ltrb(record.size, record.bucket))}
    for key, shown in (("latents", pixels), ("latents_flipped", pixels.mirrored())):
        posterior = encode(model_input([shown.image]))
        noise = torch.randn(posterior.mean.shape, generator=generator)
        if key == "latents" or subset.flip_aug:
            arrays[key] = (posterior.mean + posterior.std * noise)[0].numpy()
    if pixels.weights is not None:
        arrays["alpha_mask"] = pixels.weights.astype(np.float32) / 255
    return arrays


def cache_of_another_tool(prepared, named: str = "train_network") -> dict[str, Path]:
    """Writes it, with plain numpy; the file of each image by the image's name."""
    files = {}
    for dataset in prepared:
        for record in dataset.records:
            image = Path(record.path)
            files[image.name] = NAMES[named](image, record.size)
            np.savez(files[image.name], **arrays_of(record, dataset.settings.subsets[record.subset]))
    return files


def change(file: Path, **arrays: np.ndarray | None) -> None:
    """Writes a file again with other values; None removes a key."""
    with np.load(file) as entry:
        whole = {**entry, **arrays}
    np.savez(file, **{key: value for key, value in whole.items() if value is not None})


def filled(prepared, encode=encode, **options) -> LatentCache:
    return fill_cache(prepared, encode, cache_settings(**options))
