"""Buckets: the sizes and assignments of the formulae, worked out by hand, and what holds for every image."""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.buckets import assign_nearest, assign_single, assign_without_upscaling, bucket_assigner, cover, make_buckets

BUCKETS_512 = make_buckets((512, 512), 256, 1024, 64)
SIDES = st.integers(1, 20000)


def test_buckets_of_512():
    tall = [(256, height) for height in (832, 896, 960, 1024)] + [(320, 704), (320, 768), (384, 640), (448, 576)]
    assert sorted([*tall, (512, 512), *((height, width) for width, height in tall)]) == BUCKETS_512


@pytest.mark.parametrize(
    ("resolution", "smallest", "largest", "count"),
    [((512, 512), 256, 1024, 17), ((1024, 1024), 256, 2048, 41), ((1024, 1024), 256, 1024, 25), ((768, 512), 256, 1024, 19)],
)
def test_number_of_buckets(resolution, smallest, largest, count):
    assert len(make_buckets(resolution, smallest, largest, 64)) == count


def test_a_resolution_under_one_step_makes_no_empty_bucket():
    assert make_buckets((32, 32), 64, 64, 64) == [(64, 64)]


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((1000, 1500), (384, 640), (427, 640)),
        ((1920, 1080), (640, 384), (683, 384)),
        ((300, 200), (640, 384), (640, 427)),
        ((700, 700), (512, 512), (512, 512)),
        ((640, 384), (640, 384), (640, 384)),
        ((1, 5000), (256, 1024), (256, 1280000)),
    ],
)
def test_assignment_with_upscaling(size, bucket, resized):
    assert assign_nearest(size, BUCKETS_512) == (bucket, resized)


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((1000, 1500), (384, 576), (384, 576)),
        ((1920, 1080), (640, 384), (683, 384)),
        ((300, 200), (256, 192), (300, 200)),
        ((700, 700), (512, 512), (512, 512)),
        ((512, 512), (512, 512), (512, 512)),
        ((63, 63), (64, 64), (64, 64)),
        ((30, 40), (64, 64), (64, 85)),
        ((300, 40), (448, 64), (480, 64)),
        ((1, 1), (64, 64), (64, 64)),
        ((10000, 10), (4096, 64), (64000, 64)),
        ((20000, 100), (4096, 64), (12800, 64)),
    ],
)
def test_assignment_without_upscaling(size, bucket, resized):
    assert assign_without_upscaling(size, (512, 512), 64) == (bucket, resized)


def test_without_buckets_every_image_covers_the_resolution():
    assert assign_single((1000, 500), (512, 512)) == ((512, 512), (1024, 512))
    assert assign_single((100, 300), (512, 256)) == ((512, 256), (512, 1536))


def test_the_first_of_two_equally_near_buckets_is_taken():
    assert assign_nearest((300, 200), [(64, 64), (128, 64)]).bucket == (64, 64)  # 1.5 is as far from 1 as from 2


@given(SIDES, SIDES, st.sampled_from([(512, 512), (768, 512), (500, 300), (1024, 1024)]), st.sampled_from([32, 64, 128]))
def test_no_image_leaves_a_gap_or_an_empty_side(width, height, resolution, step):
    for assignment in (
        assign_nearest((width, height), make_buckets(resolution, 256, 1024, step)),
        assign_without_upscaling((width, height), resolution, step),
        assign_single((width, height), resolution),
    ):
        assert all(0 < bucket <= resized for bucket, resized in zip(*assignment, strict=True))
    bucket, _ = assign_without_upscaling((width, height), resolution, step)
    assert not any(side % step for side in bucket)
    assert bucket[0] * bucket[1] <= resolution[0] * resolution[1] * 1.01


@given(SIDES, SIDES)
def test_covering_fits_one_side_exactly(width, height):
    resized = cover((width, height), (640, 384))
    assert resized[0] >= 640 and resized[1] >= 384
    assert resized[0] == 640 or resized[1] == 384


def test_settings_choose_the_way():
    def assign(**settings):
        subset = SubsetSettings(image_dir=Path("images"))
        return bucket_assigner(DatasetSettings(resolution=(512, 512), subsets=(subset,), **settings))((300, 200))

    assert assign() == ((512, 512), (768, 512))
    assert assign(enable_bucket=True) == ((640, 384), (640, 427))
    assert assign(enable_bucket=True, bucket_no_upscale=True) == ((256, 192), (300, 200))
    assert assign(enable_bucket=True, bucket_no_upscale=True, bucket_reso_steps=128) == ((256, 128), (300, 200))
