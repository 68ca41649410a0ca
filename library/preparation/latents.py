"""Encodes the images of a metadata file beforehand, into the very cache that training with cache_latents_to_disk reads."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from library.config.datasets.build import dataset_settings
from library.config.datasets.layers import Layers
from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.settings import Source, settings_of
from library.data.buckets import bucket_assigner
from library.data.cache import CacheSettings
from library.data.cache_fill import fill_cache
from library.data.records import ImageRecord, PreparedDataset
from library.data.scan import Scan
from library.data.weights_fingerprint import weights_fingerprint
from library.errors import UserError
from library.families.architecture import TITLES, architecture_of_file, architecture_of_folder
from library.families.autoencoder import encode_images
from library.families.configs_sd import LATENT_SCALE
from library.families.diffusers_folder import read_index
from library.families.encoding import PictureEncoder
from library.families.loading import load_vae
from library.families.locate import locate
from library.families.reading import read_vae
from library.families.sd import StableDiffusion
from library.families.single_file import vae_part
from library.families.weight_files import read_shapes
from library.preparation.device import best_device

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BUCKET_STEP = StableDiffusion.bucket_step  # of the models with this VAE
WITH_THIS_VAE = ("sd_v1", "sd_v2")


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What images are resized and cropped to; named after the tool's flags."""

    max_resolution: tuple[int, int]
    min_bucket_reso: int
    max_bucket_reso: int
    bucket_reso_steps: int
    bucket_no_upscale: bool


def bucketed_dataset(root: Path, sizing: Sizing, flip_aug: bool, alpha_mask: bool) -> DatasetSettings:
    """The settings of a dataset whose latents are those of the images; prints what a person should know."""
    if sizing.bucket_reso_steps % BUCKET_STEP:
        raise UserError(f"--bucket_reso_steps: {sizing.bucket_reso_steps} is not divisible by {BUCKET_STEP}; write 64, 128, ...")
    values = {
        "enable_bucket": True,
        "resolution": sizing.max_resolution,
        "min_bucket_reso": sizing.min_bucket_reso,
        "max_bucket_reso": sizing.max_bucket_reso,
        "bucket_reso_steps": sizing.bucket_reso_steps,
        "bucket_no_upscale": sizing.bucket_no_upscale,
    }
    places = {name: Source("--max_resolution" if name == "resolution" else f"--{name}") for name in values}
    subset = SubsetSettings(image_dir=root, flip_aug=flip_aug, alpha_mask=alpha_mask, where="train_data_dir")
    mistakes: list[str] = []
    dataset = dataset_settings(Layers((), settings_of(values, sources=places)), [subset], "train_data_dir", [], mistakes)
    if mistakes or dataset is None:
        raise UserError(*mistakes)
    for note in dataset.notes:
        print(note)
    return dataset


def assign_buckets(dataset: DatasetSettings, scan: Scan) -> PreparedDataset:
    """The good images of a scan with their buckets; prints how many there are in each."""
    assign = bucket_assigner(dataset)
    records = []
    for path, size in scan.sizes.items():
        bucket, resized = assign(size)
        records.append(
            ImageRecord(
                path=path,
                size=size,
                caption="",
                has_caption=False,
                subset=0,
                is_reg=False,
                num_repeats=1,
                bucket=bucket,
                resized=resized,
            )
        )
    for (width, height), count in sorted(Counter(record.bucket for record in records).items()):
        print(f"bucket {width}x{height}: {count} images")
    return PreparedDataset(dataset, records)


def find_vae(name: str, v2: bool) -> str:
    """The path of a file or folder with a Stable Diffusion VAE; UserError if the model is one with another VAE."""
    path = locate(name, "model_name_or_path")
    architecture = _architecture(path)
    if architecture is None:
        return str(path)
    if architecture not in WITH_THIS_VAE:
        raise UserError(
            f"model_name_or_path: {name} is {TITLES[architecture]}; this tool knows Stable Diffusion 1.x and 2.x: "
            "for other models let the training cache latents, with cache_latents_to_disk"
        )
    if v2 and architecture != "sd_v2":
        raise UserError(f"--v2: {name} is {TITLES[architecture]}: leave out --v2")
    return str(path)


def _architecture(path: Path) -> str | None:
    """A key of TITLES, or None for a VAE alone."""
    if path.is_dir():
        return architecture_of_folder(path, read_index(path)) if (path / "model_index.json").is_file() else None
    shapes = read_shapes(path)
    return architecture_of_file(path, shapes) if any(name.startswith("model.diffusion_model.") for name in shapes) else None


def write_latents(prepared: PreparedDataset, vae_path: str, precision: str, batch_size: int, skip_existing: bool) -> None:
    """Encode what is missing and say what was done; UserError at the end if some images could not be."""
    vae = load_vae(read_vae(vae_path, vae_part(LATENT_SCALE)), DTYPES[precision], best_device(), full_precision=False)
    settings = CacheSettings(
        on_disk=True, vae_batch_size=batch_size, skip_cache_check=skip_existing, vae_fingerprint=weights_fingerprint(vae)
    )
    with torch.no_grad(), tqdm(desc="encoding", unit="image") as bar:
        cache = fill_cache([prepared], _encoder(vae), settings, lambda done, total: _show(bar, done, total))
    print("\n".join(cache.report.lines()))


def _encoder(vae: nn.Module) -> PictureEncoder:
    return PictureEncoder(vae, partial(encode_images, vae), _tell_widened)


def _tell_widened(paths: list[str], precision: str) -> None:
    print(f"the VAE makes no finite numbers of {', '.join(paths)} in {precision}: it runs in float32 from here on")


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
