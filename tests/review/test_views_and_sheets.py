"""A batch can be looked at: its very pixels, its masks in red, its latents as colours; and as one picture of all of them."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from library.data.foreign_batches import ForeignDataset
from library.data.order import TrainingOrder
from library.review.sheet import COLUMNS, LARGEST_SIDE, MARGIN, MOST_LINES, SMALLEST_SIDE, _wrapped, batch_sheet
from library.review.views import RED, RED_OPACITY, View, overlay, views_of, with_mask
from library.types import Batch
from tests.data.test_foreign import prepared_of


def view(**facts) -> View:
    values = {
        "path": "a.png", "caption": "a frog", "pixels": np.zeros((64, 96, 3), np.uint8), "shows_latents": False, "weights": None, "absent": "",
        "flipped": False, "loss_weight": 1.0, "original_size": (96, 64), "crop_top_left": (0, 0), "size": (96, 64),
        "custom_attributes": {},
    }  # fmt: skip
    return View(**{**values, **facts})


def batch_of(name: str) -> Batch:
    prepared = prepared_of(name, (64, 128))
    (place, *_) = TrainingOrder([prepared], 3, 1, 0, 1).places(1, 1)
    return ForeignDataset(prepared, 3, 100)[place]


def test_pixels_are_those_of_the_image():
    batch = batch_of("Plain")
    values = torch.arange(256, dtype=torch.uint8).repeat(96).reshape(1, 3, 128, 64)
    batch.images = values.float() / 127.5 - 1
    batch.image_paths = batch.image_paths[:1]
    (seen,) = views_of(batch)
    assert np.array_equal(seen.pixels, values[0].permute(1, 2, 0).numpy())
    assert seen.size == (64, 128) and not seen.shows_latents and seen.weights is None


def test_latents_are_shown_as_colours_and_the_mask_comes_along():
    batch = batch_of("Full")
    batch.posterior.mean[0, :3] = torch.tensor([[-1.0, 3.0], [0.0, 1.0]]).repeat(3, 4, 4)
    first, second = views_of(batch)
    assert first.shows_latents and first.pixels.shape == (8, 8, 3)
    assert first.pixels[:2, :2, 0].tolist() == [[0, 255], [64, 128]]
    assert (second.pixels == 0).all()  # all the same
    assert (first.flipped, second.flipped) == (True, False)
    assert (first.original_size, first.crop_top_left, first.loss_weight) == ((200, 100), (0, 3), 1.0)
    assert second.loss_weight == 0.5 and first.custom_attributes == {"score": batch.place.samples[0].entry}
    assert first.weights.shape == (64, 64)


def test_what_does_not_count_is_red():
    weights = np.array([[1.0, 0.0], [0.5, 0.25]], np.float32)
    layer = np.asarray(overlay(weights))
    assert (layer[..., :3] == RED).all()
    assert layer[..., 3].tolist() == [[0, round(255 * RED_OPACITY)], [round(127.5 * RED_OPACITY), round(191.25 * RED_OPACITY)]]
    laid = np.asarray(with_mask(view(pixels=np.zeros((2, 2, 3), np.uint8), weights=weights)))
    assert laid[0, 0].tolist() == [0, 0, 0]
    assert laid[0, 1] == pytest.approx(RED * RED_OPACITY, abs=1)


@pytest.mark.parametrize(
    ("size", "shown"), [((96, 64), (288, 192)), ((512, 512), (512, 512)), ((1280, 640), (640, 320))]
)
def test_the_sheet_has_room_for_all_pictures_side_by_side(size, shown):
    pixels = np.full((size[1], size[0], 3), 7, np.uint8)
    sheet = batch_sheet([view(pixels=pixels, size=size, caption="")] * 8, "title")
    assert sheet.width == MARGIN + COLUMNS * (shown[0] + MARGIN)
    assert max(shown) <= max(LARGEST_SIDE, 2 * SMALLEST_SIDE)
    dark = (np.asarray(sheet) == 7).all(axis=2)
    assert dark.sum() >= 8 * shown[0] * shown[1] * 0.98


def test_a_picture_that_is_not_there_has_its_place():
    sheet = batch_sheet([view(pixels=None, absent="gone"), view()], "title")
    assert sheet.width == MARGIN + 2 * (288 + MARGIN) or sheet.width == MARGIN + 2 * (96 * 3 + MARGIN)


class Ruler:
    """A font of which each letter is 10 pixels wide."""

    def getlength(self, text: str) -> float:
        return 10.0 * len(text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a frog on a stone", ["a frog on", "a stone"]),
        ("12345678901234 x", ["1234567890", "1234 x"]),
        ("line\nbreaks\t too", ["line", "breaks too"]),
        ("x " * 100, ["x x x x x"] * (MOST_LINES - 1) + ["x x x ..."]),
    ],
)
def test_captions_are_wrapped(text, lines):
    assert _wrapped(text, Ruler(), 100) == lines
