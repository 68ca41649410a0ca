"""What a batch says of each of its pictures, as arrays and plain values that can be drawn and printed."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from library.types import Batch

RED = np.array([229, 57, 53], np.uint8)  # lies over what does not count
RED_OPACITY = 0.5  # where a pixel does not count at all


@dataclass(frozen=True)
class View:
    """One picture of a batch, as the model is given it. Sizes are (width, height)."""

    path: str
    caption: str
    pixels: np.ndarray | None  # uint8 [H, W, 3]; None: there is nothing to show
    absent: str  # why there is nothing to show
    shows_latents: bool  # `pixels` are no colours but the first three channels of latents
    weights: np.ndarray | None  # float32 [H, W], 0..1: how much each pixel counts; None: all fully
    flipped: bool
    loss_weight: float
    original_size: tuple[int, int]
    crop_top_left: tuple[int, int]
    size: tuple[int, int]
    custom_attributes: dict[str, Any]


def views_of(batch: Batch, absent: Mapping[str, str] | None = None) -> list[View]:
    """Each picture of the batch. `absent`: why some pictures are not there, by path."""
    return [_view(batch, number, (absent or {}).get(path, "")) for number, path in enumerate(batch.image_paths)]


def _view(batch: Batch, number: int, absent: str) -> View:
    pixels = None
    if batch.images is not None and not absent:
        pixels = _colours(batch.images[number])
    elif batch.posterior is not None:
        pixels = _latents(batch.posterior.mean[number])
    height, width = batch.target_sizes_hw[number].tolist()
    original_height, original_width = batch.original_sizes_hw[number].tolist()
    top, left = batch.crop_top_lefts[number].tolist()
    return View(
        path=batch.image_paths[number],
        caption=batch.captions[number],
        pixels=pixels,
        absent=absent,
        shows_latents=batch.posterior is not None,
        weights=None if batch.masks is None or absent else batch.masks[number].float().numpy(),
        flipped=batch.flipped[number],
        loss_weight=float(batch.loss_weights[number]),
        original_size=(original_width, original_height),
        crop_top_left=(top, left),
        size=(width, height),
        custom_attributes=batch.custom_attributes[number] if batch.custom_attributes else {},
    )


def _colours(image: torch.Tensor) -> np.ndarray:
    """[3, H, W], uint8 or in -1..1, to uint8 [H, W, 3]: the very pixels that the loader read."""
    if image.is_floating_point():
        image = ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return image.permute(1, 2, 0).numpy()


def _latents(mean: torch.Tensor) -> np.ndarray:
    """The first three channels [C, h, w], each spread over the whole range of brightness."""
    channels = mean[:3].float().permute(1, 2, 0).numpy()
    least, most = channels.min(axis=(0, 1)), channels.max(axis=(0, 1))
    return np.rint((channels - least) / np.maximum(most - least, 1e-6) * 255).astype(np.uint8)


def overlay(weights: np.ndarray) -> Image.Image:
    """Red as opaque as the pixels do not count."""
    red = np.empty((*weights.shape, 4), np.uint8)
    red[..., :3] = RED
    red[..., 3] = np.rint((1 - weights.clip(0, 1)) * RED_OPACITY * 255)
    return Image.fromarray(red)


def with_mask(view: View) -> Image.Image | None:
    """The picture with its mask laid over it."""
    if view.pixels is None:
        return None
    picture = Image.fromarray(view.pixels)
    if view.weights is None:
        return picture
    layer = overlay(view.weights).resize(picture.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
