"""A contact sheet of the sample images of a run: a row per prompt, a column per time of drawing."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6  # pixels around each picture
TEXT_HEIGHT = 18
SMALLEST_CELL = 128  # smaller pictures are enlarged, so that a person sees them


def contact_sheet(prompts: Sequence[str], columns: Sequence[tuple[str, Sequence[Path | None]]]) -> Image.Image:
    """One picture of many. `columns`: (label, a file or None per prompt), oldest first."""
    pictures = {path: Image.open(path).convert("RGB") for _, paths in columns for path in paths if path is not None}
    largest = max((max(picture.size) for picture in pictures.values()), default=SMALLEST_CELL)
    cell = max(largest, SMALLEST_CELL)
    step_x, step_y = cell + 2 * MARGIN, cell + 2 * MARGIN + TEXT_HEIGHT
    sheet = Image.new("RGB", (step_x * max(len(columns), 1), TEXT_HEIGHT + step_y * len(prompts)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for x, (label, paths) in enumerate(columns):
        draw.text((x * step_x + MARGIN, 2), label, fill="black", font=font)
        for y, path in enumerate(paths):
            if path is not None:
                sheet.paste(_enlarged(pictures[path], cell), (x * step_x + MARGIN, TEXT_HEIGHT + y * step_y + TEXT_HEIGHT))
    for y, prompt in enumerate(prompts):
        draw.text((MARGIN, TEXT_HEIGHT + y * step_y), prompt, fill="black", font=font)
    return sheet


def _enlarged(picture: Image.Image, cell: int) -> Image.Image:
    """Whole-number enlargement without smoothing: a 64-pixel sample is shown as it is."""
    factor = max(1, cell // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
