"""Small folders of pictures, datasets over them, and a stand-in for a VAE."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from library.config.datasets import CaptionSettings, DatasetSettings, SubsetSettings
from library.data.cache import CacheSettings
from library.data.records import PreparedDataset
from library.data.sources import prepare_datasets
from library.types import Posterior

SIZES = [(96, 96), (150, 90), (80, 140), (128, 128), (200, 100), (64, 64)]


def write_images(folder: Path, sizes=SIZES, alpha: bool = False) -> Path:
    """PNG files 0.png, 1.png, ... of noise in blocks; with `alpha` the alpha channel repeats the red one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        write_image(folder / f"{number}.png", size, number, alpha)
        (folder / f"{number}.txt").write_text(f"one {number}, two, three, four, five", encoding="utf-8")
    return folder


def write_image(path: Path, size: tuple[int, int], seed: int, alpha: bool = False) -> None:
    width, height = size
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    Image.fromarray(np.dstack([pixels, pixels[..., 0]]) if alpha else pixels).save(path)


def spoil_inside(entry: Path, key: str) -> None:
    """Change one bit of an array in a cache file, which stays whole in all else."""
    content = bytearray(entry.read_bytes())
    with np.load(entry) as arrays:
        content[content.index(arrays[key].tobytes()) + 5] ^= 1
    entry.write_bytes(content)


def subset_of(folder: Path, **options) -> SubsetSettings:
    caption = CaptionSettings(**options.pop("caption", {}))
    return SubsetSettings(image_dir=folder, caption_extension=".txt", caption=caption, where=f"subset {folder.name}", **options)


def prepare(*subsets: SubsetSettings, **options) -> list[PreparedDataset]:
    """One dataset of 128-pixel buckets over the subsets."""
    settings = {"resolution": (128, 128), "min_bucket_reso": 64, "max_bucket_reso": 256, "enable_bucket": True, "batch_size": 2}
    return prepare_datasets([DatasetSettings(**{**settings, **options}, subsets=subsets)])


def encode(images: torch.Tensor, paths: Sequence[str] = ()) -> Posterior:
    """Stands in for a VAE: the mean of 8x8 pixels, and a deviation that depends on the picture. Commutes with mirroring."""
    means = torch.nn.functional.avg_pool2d(images, 8)
    means = torch.cat([means, means.mean(dim=1, keepdim=True)], dim=1)
    return Posterior(means, 0.1 + means.abs())


def cache_settings(**options) -> CacheSettings:
    settings = {"on_disk": True, "vae_batch_size": 2, "skip_cache_check": False, "vae_fingerprint": "vae 1"}
    return CacheSettings(**{**settings, **options})
