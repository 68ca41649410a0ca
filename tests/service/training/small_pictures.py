"""Pictures for jobs, without anything heavy."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def write_picture(path: Path, number: int) -> None:
    """64 x 64 pixels, another picture for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_mandelbrot((64, 64), (-2 + number / 10, -1.5, 1, 1.5), 20).convert("RGB").save(path)
