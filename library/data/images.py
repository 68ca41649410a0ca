"""Image files to upright uint8 arrays, and those to what the model sees: resized, then cropped to their bucket."""
from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from library.data.image_files import TRANSPOSITIONS, BadImage, decode, opened, orientation
from library.data.records import Size

_CV2_METHODS = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "linear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
_PILLOW_METHODS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
INTERPOLATIONS = (*_PILLOW_METHODS, *_CV2_METHODS)


def read_image(path: str, keep_alpha: bool = False) -> np.ndarray:
    """The upright image as uint8 [height, width, 3], transparency laid over white.

    With `keep_alpha`: [height, width, 4], colours as stored and alpha beside them (255 where the file has none).
    """
    with opened(path) as (file, image):
        upright = TRANSPOSITIONS.get(orientation(image, file))
        decode(file, image)
        pixels = _to_rgba(_to_8_bit(path, image))
        if upright is not None:
            pixels = pixels.transpose(upright)
        if keep_alpha:
            return np.array(_in_mode(pixels, "RGBA"))
        if pixels.mode == "RGBA":
            pixels = Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)
        return np.array(_in_mode(pixels, "RGB"))


def fit_image(
    image: np.ndarray, resized: Size, bucket: Size, left_top: tuple[int, int] | None = None, interpolation: str | None = None
) -> np.ndarray:
    """The image [H, W, channels] resized to `resized`, then cut to `bucket` at `left_top`, by default at the centre."""
    left, top = centre_crop(resized, bucket) if left_top is None else left_top
    width, height = bucket
    return np.ascontiguousarray(resize(image, resized, interpolation)[top : top + height, left : left + width])


def centre_crop(resized: Size, bucket: Size) -> tuple[int, int]:
    """(left, top) of the central crop."""
    return (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2


def resize(image: np.ndarray, size: Size, interpolation: str | None = None) -> np.ndarray:
    """The image at (width, height), by default with OpenCV's area method if no side grows, else with Pillow's Lanczos."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    if interpolation is None:
        interpolation = "area" if size[0] <= width and size[1] <= height else "lanczos"
    if interpolation in _CV2_METHODS:
        return cv2.resize(image, size, interpolation=_CV2_METHODS[interpolation])
    colours = np.asarray(Image.fromarray(image[..., :3]).resize(size, _PILLOW_METHODS[interpolation]))
    if image.shape[2] == 3:
        return colours
    # Alpha goes by itself, for Pillow would blacken the colours that it hides.
    alpha = np.asarray(Image.fromarray(image[..., 3]).resize(size, _PILLOW_METHODS[interpolation]))
    return np.dstack([colours, alpha])


def _to_8_bit(path: str, image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits scaled to 8; anything else as it is. (Pillow scales colour of 16 bits itself, but clips grey.)"""
    if image.mode != "F" and image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadImage(path, "has floating-point or 32-bit pixels: save it with 8 or 16 bits per channel")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _to_rgba(image: Image.Image) -> Image.Image:
    """RGBA if anything in the image may be transparent, else RGB."""
    return _in_mode(image, "RGBA" if image.has_transparency_data else "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image itself if that is its mode: `convert` would copy it."""
    return image if image.mode == mode else image.convert(mode)
