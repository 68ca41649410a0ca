"""Whole runs that are struck while they cache or load pictures, and pictures that vanish or are corrupt."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

from tests.data.tiny_datasets import spoil_inside
from tests.train.runs import IMAGES, KILL, Strike, Workshop, make_workshop, tensors_hash, write_picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")

CACHED = {"cache_latents": True, "cache_latents_to_disk": True}
PLANNED = "library.train.run.make_batches"  # the pictures are listed, no picture has been read for training
RENAME = "library.checkpoint.files.replace"
STORE = "library.data.cache_fill._Filling._store"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("caching"), max_train_epochs=1, max_data_loader_n_workers=0)


def own_pictures(workshop: Workshop, name: str) -> Path:
    """A folder of pictures for one run, as they are in that of all."""
    return shutil.copytree(workshop.folder / "data", workshop.folder / f"data of {name}") / "1_toad"


def weights(workshop: Workshop, name: str) -> str:
    return tensors_hash(workshop.output(name) / "toad.safetensors")


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    pictures = own_pictures(workshop, "unbroken")
    outcome = workshop.train("unbroken", train_data_dir=str(pictures.parent), **CACHED)
    assert outcome.code == 0, outcome.output
    return weights(workshop, "unbroken")


@pytest.mark.parametrize("strike", [Strike(STORE, 2, "before"), Strike(RENAME, 4, "after")], ids=["storing", "renaming"])
def test_killed_while_caching_and_run_again(workshop, unbroken, strike):
    name = strike.function.rpartition(".")[2]
    pictures = own_pictures(workshop, name)
    assert workshop.train(name, strikes=[strike], train_data_dir=str(pictures.parent), **CACHED).code == -KILL
    outcome = workshop.train(name, train_data_dir=str(pictures.parent), **CACHED)
    assert outcome.code == 0, outcome.output
    assert weights(workshop, name) == unbroken
    assert len(list(pictures.glob("*.npz"))) == IMAGES
    assert not list(pictures.glob(".*"))


def test_entries_that_a_disk_has_spoilt_are_made_again(workshop):
    pictures = own_pictures(workshop, "spoilt")
    text = {"cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True, "network_train_unet_only": True}
    options = {"train_data_dir": str(pictures.parent), **CACHED, **text}
    assert workshop.train("whole", **options).code == 0
    spoil_inside(pictures / "2_0064x0064_sd.npz", "latents_mean")
    spoil_inside(pictures / "3_sd_te.npz", "hidden_state")
    outcome = workshop.train("spoilt", **options)
    assert outcome.code == 0, outcome.output
    assert f"latents: {IMAGES - 1} images from the cache, 1 encoded (1 damaged)" in outcome.output
    assert f"text encoder outputs: {IMAGES - 1} captions from the cache, 1 encoded (1 damaged)" in outcome.output
    assert weights(workshop, "spoilt") == weights(workshop, "whole")


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("loaded here", {"cache_latents": False}),
        ("loaded by workers", {"cache_latents": False, "max_data_loader_n_workers": 2}),
        ("cached in memory", {"cache_latents": True}),
        ("cached on disk", CACHED),
    ],
)
def test_a_picture_that_vanishes_after_it_was_listed_is_told_in_one_line(workshop, how, options):
    pictures = own_pictures(workshop, how)
    gone = pictures / "3.png"
    strike = Strike(PLANNED, 1, "before", mishap=functools.partial(os.unlink, gone))
    outcome = workshop.train(how, strikes=[strike], train_data_dir=str(pictures.parent), **options)
    assert outcome.code == 2
    told = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
    assert told == [f"error: {gone}: is gone (a broken link, or removed since the folder was listed)"]
    assert "Traceback" not in outcome.output


def test_a_picture_that_vanishes_while_the_folder_is_read_can_be_skipped(workshop):
    for how, code in (("stop", 2), ("skip", 0)):
        pictures = own_pictures(workshop, how)
        gone = pictures / "3.png"
        strike = Strike("library.data.sources.scan_images", 1, "before", mishap=functools.partial(os.unlink, gone))
        outcome = workshop.train(how, strikes=[strike], train_data_dir=str(pictures.parent), on_bad_image=how)
        assert outcome.code == code, outcome.output
        assert f"{gone}: is gone" in outcome.output
        assert len([event for event in workshop.events(how) if event["event"] == "step"]) == (4 if how == "skip" else 0)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory) -> Path:
    """A hundred pictures, one of them corrupt."""
    folder = tmp_path_factory.mktemp("hundred")
    (folder / "1_toad").mkdir()
    for number in range(100):
        write_picture(folder / "1_toad" / f"{number}.png", number)
    corrupt = folder / "1_toad" / "42.png"
    corrupt.write_bytes(corrupt.read_bytes()[:150])
    return folder


def test_one_of_a_hundred_is_corrupt(workshop, hundred):
    options = {"train_data_dir": str(hundred), "train_batch_size": 33, **CACHED}
    stopped = workshop.train("hundred stop", **options)
    assert stopped.code == 2
    (bad, remedy) = [line for line in stopped.output.splitlines() if line.startswith("error: ")]
    assert bad.startswith(f"error: {hundred / '1_toad' / '42.png'}: ") and "--on_bad_image skip" in remedy
    assert not list(hundred.rglob("*.npz"))
    skipped = workshop.train("hundred skip", **options, on_bad_image="skip")
    assert skipped.code == 0, skipped.output
    assert "99 training images" in skipped.output and "42.png: " in skipped.output
    assert len([event for event in workshop.events("hundred skip") if event["event"] == "step"]) == 3
    assert len(list(hundred.rglob("*.npz"))) == 99
