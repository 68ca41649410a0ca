"""Pictures of every odd but valid kind, and what each looks like to a person: the colours of its quarters."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
GREYS = (BLACK, (85, 85, 85), (170, 170, 170), WHITE)
COLOURS = (RED, GREEN, BLUE, BLACK)
SIDE = 64
ORIENTATION = 0x0112  # in EXIF


@dataclass(frozen=True)
class OddPicture:
    """`quarters`: top left, top right, bottom left, bottom right, 0..255, as the model must see them."""

    name: str
    save: Callable[[Path], object]
    quarters: tuple[Colour, Colour, Colour, Colour] = COLOURS
    tolerance: int = 0  # of formats that lose something, in 0..255


def quartered(*values: Colour | int, dtype: type = np.uint8) -> np.ndarray:
    """[64, 64] or [64, 64, channels] with these values in its quarters."""
    return np.array(values, dtype).reshape(2, 2, *np.shape(values[0])).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)


COLOURED = Image.fromarray(quartered(*COLOURS))


def rotated(turns: int, orientation: int, **options: object) -> Callable[[Path], object]:
    """Stored lying on its side, with the EXIF that puts it upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(COLOURED), turns)))
    return lambda path: lying.save(path, exif=exif, **options)


def mirrored(path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 2
    Image.fromarray(np.ascontiguousarray(np.asarray(COLOURED)[:, ::-1])).save(path, exif=exif)


def cmyk(path: Path) -> None:
    inks = quartered((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 255))
    Image.fromarray(inks, "CMYK").save(path, quality=100, subsampling=0)


def palette(transparent: int | None) -> Callable[[Path], object]:
    image = Image.fromarray(quartered(0, 1, 2, 3), "P")
    image.putpalette([value for colour in COLOURS for value in colour])
    options = {} if transparent is None else {"transparency": transparent}
    return lambda path: image.save(path, **options)


def sixteen_bits(path: Path) -> None:
    cv2.imwrite(str(path), quartered((0, 0, 65535), (0, 65535, 0), (65535, 0, 0), (0, 0, 0), dtype=np.uint16))  # BGR


def animated(path: Path) -> None:
    others = [Image.new("RGB", (SIDE, SIDE), "white"), Image.new("RGB", (SIDE, SIDE), "yellow")]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    COLOURED.save(path, save_all=True, append_images=others, duration=50, **options)


def transparent(path: Path) -> None:
    """Whole, half, not at all and not at all there."""
    Image.fromarray(quartered((*RED, 255), (*GREEN, 128), (*BLUE, 0), (*BLACK, 0))).save(path)


ODD_PICTURES = (
    OddPicture("turned.jpg", rotated(1, 6, quality=100, subsampling=0), tolerance=4),
    OddPicture("turned_back.png", rotated(-1, 8)),
    OddPicture("upside_down.webp", rotated(2, 3, lossless=True)),
    OddPicture("mirrored.png", mirrored),
    OddPicture("inks.jpg", cmyk, tolerance=4),
    OddPicture("palette.png", palette(None)),
    OddPicture("palette_with_transparency.png", palette(1), (RED, WHITE, BLUE, BLACK)),
    OddPicture("deep_grey.png", lambda path: Image.fromarray(quartered(0, 21845, 43690, 65535, dtype=np.uint16)).save(path), GREYS),
    OddPicture("deep_colour.png", sixteen_bits),
    OddPicture("animated.webp", animated),
    OddPicture("animated_too.png", animated),
    OddPicture("transparent.png", transparent, (RED, (127, 255, 127), WHITE, WHITE), tolerance=1),
    OddPicture("grey.bmp", lambda path: Image.fromarray(quartered(0, 85, 170, 255)).save(path), GREYS),
    OddPicture("two_colours.png", lambda path: Image.fromarray(quartered(0, 255, 255, 0)).convert("1").save(path), (BLACK, WHITE, WHITE, BLACK)),
    OddPicture("CAPITALS.PNG", lambda path: COLOURED.save(path)),
)  # fmt: skip
