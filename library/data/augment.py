"""Random changes of an image before training: colours, and where it is cropped. Each is a function of its `rng`."""
from __future__ import annotations

import random
import re
from typing import NamedTuple

import cv2
import numpy as np

from library.data.buckets import cover
from library.data.records import Size

_COLOUR_PROBABILITY = 0.33
_HUE_DEGREES = 16.0  # of 360, either way
_GAMMA = (0.95, 1.05)
_JITTER = 20  # a crop around a face moves by up to one part in this many of the face
_FACE_IN_NAME = re.compile(r"_(\d+)_(\d+)_(\d+)_(\d+)$")


class Face(NamedTuple):
    """Where face detection found a face, in pixels of the image."""

    x: int  # of its centre
    y: int
    width: int
    height: int


class Crop(NamedTuple):
    """Resize the image to `resized`, then cut the target out at `left_top`."""

    resized: Size
    left_top: tuple[int, int]


def change_colours(image: np.ndarray, rng: random.Random) -> np.ndarray:
    """Sometimes a slightly different hue or gamma. `image` is uint8 RGB [H, W, 3 or 4]; alpha stays."""
    if rng.random() >= _COLOUR_PROBABILITY:
        return image
    colours = image[..., :3].astype(np.float32) / 255
    if rng.random() < 0.5:
        changed = shift_hue(colours, rng.uniform(-_HUE_DEGREES, _HUE_DEGREES))
    else:
        changed = colours ** rng.uniform(*_GAMMA)
    result = image.copy()
    result[..., :3] = np.clip(np.rint(changed * 255), 0, 255)
    return result


def shift_hue(colours: np.ndarray, degrees: float) -> np.ndarray:
    """RGB in 0..1, float32 [H, W, 3], with its hue turned."""
    hsv = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def random_crop(resized: Size, bucket: Size, rng: random.Random) -> tuple[int, int]:
    """(left, top) of a crop anywhere inside the resized image."""
    return rng.randint(0, resized[0] - bucket[0]), rng.randint(0, resized[1] - bucket[1])


def face_in_name(stem: str) -> Face | None:
    """The face that a file name such as photo_cx_cy_w_h tells of."""
    found = _FACE_IN_NAME.search(stem)
    return Face(*map(int, found.groups())) if found else None


def face_crop(
    size: Size, face: Face, target: Size, face_range: tuple[float, float], moves_freely: bool, rng: random.Random
) -> Crop:
    """A crop of `target` pixels around the face, at a random scale.

    `face_range` is how often the face's larger side fits into the target's shorter side, in the closest and the widest view. The
    image is enlarged only as far as the target needs. With `moves_freely` (random_crop) the crop may be anywhere, more often near
    the face; else, if the range has any width, it moves by a small part of the face.
    """
    face_side = max(face.width, face.height, 1)
    covering = cover(size, target)
    least = max(target[0] / size[0], target[1] / size[1])
    scales = [max(least, min(1.0, min(target) / (face_side * times))) for times in (face_range[1], face_range[0])]
    scale = rng.uniform(*scales)
    resized = (max(covering[0], round(size[0] * scale)), max(covering[1], round(size[1] * scale)))
    jitter = round(face_side * scale) // _JITTER if face_range[0] != face_range[1] else 0
    left_top = []
    for centre, length, cut in zip((face.x, face.y), resized, target, strict=True):
        centre = round(centre * scale)
        if moves_freely:
            reach = max(centre, length - centre)
            offset = rng.randint(0, reach) + rng.randint(0, reach) - reach
        else:
            offset = rng.randint(-jitter, jitter)
        left_top.append(max(0, min(centre - cut // 2 + offset, length - cut)))
    return Crop(resized, (left_top[0], left_top[1]))
