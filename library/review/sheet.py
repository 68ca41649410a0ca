"""A batch as one picture: its pictures side by side, each with its mask laid over it and its caption below."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from PIL import Image, ImageDraw, ImageFont

from library.review.views import View, with_mask

SMALLEST_SIDE, LARGEST_SIDE = 256, 640  # pixels; smaller pictures are enlarged by a whole number, larger ones shrunk
COLUMNS = 6
MARGIN = 12
MOST_LINES, MOST_CHARACTERS = 6, 2000  # of a caption
_TEXT_SIZE, _LINE_HEIGHT = 14, 18
_INK, _FAINT, _PAPER, _EMPTY = "#1c2421", "#65716c", "#f6f7f5", "#d6dbd8"


def batch_sheet(views: Sequence[View], title: str) -> Image.Image:
    """All pictures of a batch have one size, so that the sheet is a grid."""
    font = ImageFont.load_default(size=_TEXT_SIZE)
    pictures = [_shown(view) for view in views]
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    texts = [
        [f"{number}  {_remarks(view)}", *_wrapped(view.caption or "(no caption)", font, width)]
        for number, view in enumerate(views, 1)
    ]
    step_x, step_y = width + MARGIN, height + MARGIN + _LINE_HEIGHT * max(map(len, texts))
    columns = min(COLUMNS, len(views))
    top = MARGIN + _LINE_HEIGHT + MARGIN
    sheet = Image.new("RGB", (MARGIN + columns * step_x, top + step_y * -(-len(views) // columns)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=_FAINT, font=font)
    for place, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        x, y = MARGIN + place % columns * step_x, top + place // columns * step_y
        sheet.paste(picture, (x, y))
        for number, line in enumerate(lines):
            draw.text((x, y + height + 4 + number * _LINE_HEIGHT), line, fill=_INK if number else _FAINT, font=font)
    return sheet


def _shown(view: View) -> Image.Image:
    picture = with_mask(view)
    if picture is None:
        picture = Image.new("RGB", view.size, _EMPTY)
    factor = max(1, -(-SMALLEST_SIDE // max(picture.size)))
    if factor > 1:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture


def _remarks(view: View) -> str:
    remarks = [f"{view.size[0]}x{view.size[1]}"]
    remarks += ["flipped"] if view.flipped else []
    remarks += [f"weight {view.loss_weight:g}"] if view.loss_weight != 1 else []
    remarks += ["masked"] if view.weights is not None else []
    remarks += ["latents"] if view.shows_latents else []
    remarks += [view.absent] if view.absent else []
    return "  ".join(remarks)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines of at most `width` pixels; what is too long for MOST_LINES of them ends in dots."""
    lines = list(islice(_lines(text[:MOST_CHARACTERS], font, width), MOST_LINES + 1))
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-3] + "..."]


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
    """Broken between words, or anywhere in a word that is longer than a line."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        while font.getlength(word) > width and len(word) > 1:
            fitting = next(count for count in range(len(word) - 1, 0, -1) if count == 1 or font.getlength(word[:count]) <= width)
            yield word[:fitting]
            word = word[fitting:]
        line = word
    yield line
