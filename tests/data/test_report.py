"""The report before training says what will be seen and what will not."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data.lookalikes import Lookalike
from library.data.records import ImageRecord, PreparedDataset
from library.data.report import data_report


@pytest.fixture
def report():
    subsets = (SubsetSettings(image_dir=Path("a"), class_tokens="sls frog"), SubsetSettings(image_dir=Path("b")))
    settings = DatasetSettings(resolution=(64, 64), batch_size=2, enable_bucket=True, subsets=subsets, notes=("a note",))
    square, tall = (64, 64), (64, 128)
    records = [
        ImageRecord("a/1.png", (64, 64), "a frog", True, 0, False, 3, square, (64, 64)),
        ImageRecord("a/2.png", (32, 64), "sls frog", False, 0, False, 3, square, (64, 128)),
        ImageRecord("a/3.png", (100, 200), "", True, 0, False, 3, tall, (64, 128)),
        ImageRecord("b/4.png", (64, 64), "", False, 1, True, 1, square, (64, 64)),
        ImageRecord("b/5.png", (64, 64), "", False, 1, True, 1, square, (64, 64)),
    ]
    prepared = PreparedDataset(settings, records, skipped=[("a/6.png", "is empty")], notes=["another note"])
    return data_report([prepared], [[Lookalike("a/3.png", "a/1.png", False), Lookalike("b/5.png", "b/4.png", True)]])


def test_counts(report):
    (found,) = report.datasets
    assert (found.train_entries, found.regularisation_entries) == (9, 9)
    assert (found.total.images, found.total.regularisation_images, found.total.entries) == (5, 2, 18)
    square, tall = found.buckets[(64, 64)], found.buckets[(64, 128)]
    assert (square.images, square.entries, square.upscaled) == (4, 15, 1)
    assert (tall.images, tall.entries, tall.upscaled) == (1, 3, 0)
    assert square.cropped_share == pytest.approx(0.5 / 4)  # half of the second image's area
    assert tall.cropped_share == 0
    assert (square.without_caption, tall.without_caption, found.total.without_caption) == (2, 1, 3)
    assert (square.lookalikes, tall.lookalikes, found.total.lookalikes) == (1, 1, 2)
    assert (found.captions.files, found.captions.class_tokens) == (2, 1)
    assert (found.captions.missing, found.captions.empty) == (["b/4.png", "b/5.png"], ["a/3.png"])


def test_json(report):
    (found,) = json.loads(json.dumps(report.as_dict()))["datasets"]
    assert found["buckets"][0] == {
        "bucket": [64, 64],
        "images": 4,
        "regularisation_images": 2,
        "entries": 15,
        "upscaled": 1,
        "cropped_share": 0.125,
        "mean_aspect_error": 0.125,
        "without_caption": 2,
        "lookalikes": 1,
    }
    assert found["lookalikes"][1] == {"path": "b/5.png", "of": "b/4.png", "exact": True, "leaks": False}
    assert found["skipped"] == [{"path": "a/6.png", "reason": "is empty"}]
    assert found["notes"] == ["a note", "another note"]
    assert found["resolution"] == [64, 64]


def test_lines(report):
    text = "\n".join(report.lines())
    assert "dataset 1 (64x64, batch size 2): 3 training images, 9 with repeats" in text
    assert "2 regularisation images, in turn, 9 an epoch" in text
    assert "2 buckets, mean aspect ratio error 0.100" in text
    assert "2 from files, 1 from class tokens, 2 missing" in text
    assert "2 images have no caption: b/4.png, b/5.png" in text
    assert "1 image has an empty caption file: a/3.png" in text
    assert "look-alikes: 1 exact copies, 1 near-duplicates" in text
    assert "a/3.png looks like a/1.png" in text and "b/5.png is a copy of b/4.png" in text
    assert str(Lookalike("a", "b", True, leaks=True)) == "is a copy of b, and is held out"
    assert "  2 without caption  1 look-alikes" in text
    assert "left out: a/6.png: is empty" in text
    assert "note: a note" in text and "note: another note" in text
    assert all(len(line) < 130 for line in report.lines())


def test_without_buckets_the_report_says_what_happens():
    settings = DatasetSettings(resolution=(512, 768), subsets=(SubsetSettings(image_dir=Path("a")),))
    record = ImageRecord("a/1.png", (600, 600), "x", True, 0, False, 1, (512, 768), (768, 768))
    text = "\n".join(data_report([PreparedDataset(settings, [record])]).lines())
    assert "no buckets: each image is resized to cover 512x768, then cropped to it" in text
    assert "33.3% cropped away" in text
    assert "look-alike" not in text  # nobody compared the images
