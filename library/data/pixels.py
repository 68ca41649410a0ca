"""From a record to the pixels that the model sees, with their weights, and to the crop values that SDXL is told."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from library.data.augment import Crop, change_colours, face_crop, face_in_name, random_crop
from library.data.image_files import BadImage
from library.data.images import centre_crop, fit_image, read_image
from library.data.records import ImageRecord, Size

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings


@dataclass(frozen=True)
class Pixels:
    """What the model sees of an image: [H, W, 3] uint8, and the weights of the loss [H, W] uint8 (255 is 1) if there are any."""

    image: np.ndarray
    weights: np.ndarray | None

    def mirrored(self) -> Pixels:
        return Pixels(self.image[:, ::-1], None if self.weights is None else self.weights[:, ::-1])


def fixed_pixels(record: ImageRecord, subset: SubsetSettings) -> Pixels:
    """The pixels without augmentation."""
    image = _read(record, subset)
    return _split(fit_image(image, record.resized, record.bucket, interpolation=subset.resize_interpolation))


def augmented_pixels(record: ImageRecord, subset: SubsetSettings, rng: random.Random) -> Pixels:
    """The pixels with everything that the subset asks for except flips, which are drawn elsewhere because caches hold them."""
    crop = _draw_crop(record, subset, rng)
    image = _read(record, subset)
    image = fit_image(image, crop.resized, record.bucket, crop.left_top, subset.resize_interpolation)
    return _split(change_colours(image, rng) if subset.color_aug else image)


def _read(record: ImageRecord, subset: SubsetSettings) -> np.ndarray:
    """The whole image as uint8 [height, width, 3], with a fourth channel if its pixels are weighted."""
    image = read_image(record.path, keep_alpha=subset.alpha_mask)
    _check_size(record.path, image, record.size)
    if record.mask is None:
        return image
    weights = read_image(record.mask, keep_alpha=True)[..., 0]  # the red channel as it is stored, under transparency too
    _check_size(record.mask, weights, record.size)
    return np.dstack([image, weights])


def _check_size(path: str, pixels: np.ndarray, expected: Size) -> None:
    """Buckets, crops and masks rely on the size that was found, or that a metadata file claimed, before training."""
    size = pixels.shape[1], pixels.shape[0]
    if size != expected:
        found, wanted = (f"{width}x{height}" for width, height in (size, expected))
        raise BadImage(path, f"has {found} pixels, but {wanted} when the run began, or by the image_size of its metadata file")


def _draw_crop(record: ImageRecord, subset: SubsetSettings, rng: random.Random) -> Crop:
    face = face_in_name(Path(record.path).stem)
    if subset.face_crop_aug_range is not None and face is not None:
        return face_crop(record.size, face, record.bucket, subset.face_crop_aug_range, subset.random_crop, rng)
    if subset.random_crop:
        return Crop(record.resized, random_crop(record.resized, record.bucket, rng))
    return Crop(record.resized, centre_crop(record.resized, record.bucket))


def _split(image: np.ndarray) -> Pixels:
    """Colours and alpha, cut and mirrored together until here, so that each weight stays with its pixel."""
    return Pixels(image[..., :3], image[..., 3].copy() if image.shape[2] == 4 else None)


def model_input(images: Sequence[np.ndarray]) -> torch.Tensor:
    """Images [H, W, 3] uint8 of one size as [B, 3, H, W] float32 in [-1, 1]."""
    return in_range(stacked(images))


def stacked(images: Sequence[np.ndarray]) -> torch.Tensor:
    """Images [H, W, 3] uint8 of one size as [B, 3, H, W] uint8: a quarter of the numbers, for the way to the device."""
    return torch.from_numpy(np.stack([np.stack(cv2.split(image)) for image in images]))  # much faster than to transpose


def in_range(images: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, H, W] uint8 as float32 in [-1, 1]; those of a class of the user's are that already."""
    return images if images.is_floating_point() else images.float().div_(127.5).sub_(1)


def mask_weights(weights: Sequence[np.ndarray | None], size: Size) -> torch.Tensor | None:
    """The weights of a batch as [B, H, W] float32 in 0..1, 1 where an image has none; None if no image has any."""
    if all(weight is None for weight in weights):
        return None
    width, height = size
    full = np.full((height, width), 255, np.uint8)
    return torch.from_numpy(np.stack([full if weight is None else weight for weight in weights])).float().div_(255)


def crop_ltrb(size: Size, bucket: Size) -> tuple[float, float, float, float]:
    """Where (left, top, right, bottom) the whole image would lie if it were fitted into the bucket.

    It is not the crop that is made. SDXL was fine-tuned with these values by the tools that people used until now, so they stay.
    """
    width, height = bucket
    aspect = size[0] / size[1]
    fitted_width, fitted_height = (height * aspect, float(height)) if width / height > aspect else (float(width), width / aspect)
    left, top = (width - fitted_width) // 2, (height - fitted_height) // 2
    return left, top, left + fitted_width, top + fitted_height


def crop_top_left(size: Size, bucket: Size, flipped: bool) -> tuple[int, int]:
    """The crop values that go with a sample."""
    left, top, right, _ = (int(value) for value in crop_ltrb(size, bucket))
    return top, bucket[0] - right if flipped else left
