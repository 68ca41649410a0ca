"""Augmentations: how strong, how often, where."""
from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.data.augment import Face, change_colours, face_crop, face_in_name, random_crop, shift_hue


class Scripted(random.Random):
    """Draws the given numbers in turn."""

    def __init__(self, *draws: float):
        super().__init__(0)
        self.draws = list(draws)

    def random(self) -> float:
        return self.draws.pop(0)


GREY = np.full((4, 4, 3), 128, np.uint8)


def test_gamma_is_mild():
    brighter = change_colours(GREY, Scripted(0.0, 0.9, 0.0))  # augment, gamma, the lowest
    darker = change_colours(GREY, Scripted(0.0, 0.9, 1.0))
    assert np.unique(brighter).tolist() == [round(255 * (128 / 255) ** 0.95)] == [132]
    assert np.unique(darker).tolist() == [round(255 * (128 / 255) ** 1.05)] == [124]


def test_gamma_keeps_black_and_white():
    image = np.array([[[0, 255, 0]]], np.uint8)
    assert change_colours(image, Scripted(0.0, 0.9, 0.0)).tolist() == image.tolist()


def test_hue_turns_red_towards_yellow_and_magenta():
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert change_colours(red, Scripted(0.0, 0.1, 1.0)).tolist() == [[[255, 68, 0]]]  # +16 degrees: 16 / 60 of the way to yellow
    assert change_colours(red, Scripted(0.0, 0.1, 0.0)).tolist() == [[[255, 0, 68]]]


def test_a_whole_turn_changes_nothing():
    colours = np.random.default_rng(0).random((5, 5, 3), np.float32)
    assert np.abs(shift_hue(colours, 360.0) - colours).max() < 1e-3


def test_a_third_of_the_images_change_and_the_original_never():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 4), np.uint8)
    before = image.copy()
    rng = random.Random(0)
    changed = [change_colours(image, rng) for _ in range(2000)]
    assert abs(np.mean([(found != before).any() for found in changed]) - 0.33) < 0.04
    assert (image == before).all()
    assert all((found[..., 3] == before[..., 3]).all() for found in changed)


def test_random_crop_reaches_every_place():
    rng = random.Random(0)
    places = {random_crop((67, 64), (64, 64), rng) for _ in range(200)}
    assert places == {(0, 0), (1, 0), (2, 0), (3, 0)}


@pytest.mark.parametrize(
    ("stem", "face"),
    [
        ("photo_100_80_30_40", Face(100, 80, 30, 40)),
        ("my_photo_1_2_3_4", Face(1, 2, 3, 4)),
        ("photo_100_80_30", None),
        ("photo_a_80_30_40", None),
        ("photo", None),
    ],
)
def test_face_in_name(stem, face):
    assert face_in_name(stem) == face


def test_a_fixed_range_centres_the_face():
    # A face of 100 pixels that fits twice into 256: scale 1.28. The image is never enlarged, so scale 1.
    crop = face_crop((1000, 800), Face(400, 300, 100, 80), (256, 256), (2.0, 2.0), False, random.Random(0))
    assert crop == ((1000, 800), (272, 172))
    # Eight times: scale 0.32, which just covers 256 of 800.
    crop = face_crop((1000, 800), Face(400, 300, 100, 80), (256, 256), (8.0, 8.0), False, random.Random(0))
    assert crop == ((320, 256), (0, 0))
    # Four times: scale 0.64; the face comes to lie at (256, 192).
    crop = face_crop((1000, 800), Face(400, 300, 100, 80), (256, 256), (4.0, 4.0), False, random.Random(0))
    assert crop == ((640, 512), (128, 64))


def test_the_range_bounds_the_scale():
    rng = random.Random(0)
    widths = [face_crop((1000, 800), Face(400, 300, 100, 80), (256, 256), (3.0, 4.0), False, rng).resized[0] for _ in range(300)]
    assert 640 <= min(widths) < 655 and 838 < max(widths) <= 853


def test_jitter_is_a_small_part_of_the_face():
    rng = random.Random(0)
    face = Face(500, 400, 200, 200)
    offsets = set()
    for _ in range(300):
        crop = face_crop((1000, 800), face, (256, 256), (1.28, 1.281), False, rng)
        offsets.add(crop.left_top[0] - (500 - 128))
    assert min(offsets) < -8 and max(offsets) > 8 and all(-11 <= offset <= 10 for offset in offsets)


@given(
    st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 500), st.integers(0, 500)),
    st.sampled_from([(1.0, 1.0), (2.0, 4.0), (0.5, 8.0)]),
    st.booleans(),
    st.integers(),
)
def test_a_face_crop_never_leaves_the_image(size, face, face_range, moves_freely, seed):
    crop = face_crop(size, Face(*face), (256, 192), face_range, moves_freely, random.Random(seed))
    for left, cut, length in zip(crop.left_top, (256, 192), crop.resized, strict=True):
        assert 0 <= left <= length - cut
