"""What stands out is told, the gravest first, and nothing else is."""
from __future__ import annotations

from pathlib import Path

import pytest

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.image_files import BadImage
from library.data.lookalikes import Lookalike
from library.data.records import ImageRecord, PreparedDataset
from library.data.report import data_report
from library.review.advice import advice_on
from tests.data.test_foreign import prepared_of

SQUARE = (64, 64)


def image(number: int, **facts) -> ImageRecord:
    values = {
        "path": f"{number}.png", "size": (64, 64), "caption": "a frog", "has_caption": True, "subset": 0, "is_reg": False,
        "num_repeats": 1, "bucket": SQUARE, "resized": (64, 64),
    }  # fmt: skip
    return ImageRecord(**{**values, **facts})


def kinds(records, lookalikes=(), skipped=(), undecodable=(), **options) -> list[tuple[bool, str]]:
    settings = DatasetSettings(resolution=SQUARE, subsets=(SubsetSettings(image_dir=Path("a")),), **options)
    report = data_report([PreparedDataset(settings, records, skipped=list(skipped))], [list(lookalikes)])
    return [(remark.grave, remark.kind) for remark in advice_on(report, undecodable)]


def test_nothing_stands_out():
    assert kinds([image(number) for number in range(4)], batch_size=4) == []


@pytest.mark.parametrize(
    ("records", "options", "expected"),
    [
        ([image(1, caption="", has_caption=False)], {}, (True, "captions")),
        ([image(1, caption="")], {}, (False, "captions")),
        ([image(1, size=(32, 32))], {}, (False, "buckets")),
        ([image(1, size=(80, 64), resized=(80, 64))], {}, (False, "buckets")),
        ([image(1)], {"batch_size": 2}, (False, "buckets")),
        ([image(1)], {"skipped": [("2.png", "is empty")]}, (True, "left-out")),
        ([image(1)], {"lookalikes": [Lookalike("1.png", "0.png", True)]}, (True, "look-alikes")),
        ([image(1)], {"lookalikes": [Lookalike("1.png", "0.png", False)]}, (False, "look-alikes")),
        ([image(1)], {"lookalikes": [Lookalike("1.png", "0.png", False, leaks=True)]}, (True, "look-alikes")),
        ([image(1)], {"undecodable": [BadImage("1.png", "is cut off")]}, (True, "undecodable")),
    ],
)
def test_each_thing_that_stands_out(records, options, expected):
    assert kinds(records, **options) == [expected]


def test_little_is_not_worth_a_word():
    records = [image(number) for number in range(20)]
    records += [image(20, size=(32, 32)), image(21, size=(128, 64), resized=(128, 64))]
    assert kinds(records) == []


def test_the_gravest_comes_first():
    records = [image(1, caption=""), image(2, caption="", has_caption=False)]
    assert kinds(records, undecodable=[BadImage("3.png", "is cut off")]) == [
        (True, "undecodable"), (True, "captions"), (False, "captions"),
    ]  # fmt: skip


def test_of_a_class_of_the_users_nothing_is_known():
    assert advice_on(data_report([prepared_of("Full")], [[]])) == []
