"""Whole runs on every kind of dataset: several of different size in one run, masks, metadata files, a class of one's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.train.runs import IMAGES, Outcome, Workshop, make_workshop, write_picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Pictures with masks that hide their right half, more pictures that a metadata file names, and a dataset file of all."""
    folder = tmp_path_factory.mktemp("kinds")
    workshop = make_workshop(folder, max_train_epochs=1, max_data_loader_n_workers=0)
    pictures, described = folder / "data" / "1_toad", folder / "described"
    (folder / "masks").mkdir()
    described.mkdir()
    for number in range(IMAGES):
        mask = Image.new("L", (64, 64), 255)
        mask.paste(0, (32, 0, 64, 64))
        mask.save(folder / "masks" / f"{number}.png")
        write_picture(described / f"{number}.png", 100 + number)
    entries = {str(number): {"caption": f"newt {number}", "tags": "wet", "image_size": [64, 64]} for number in range(IMAGES)}
    (folder / "meta.json").write_text(json.dumps(entries), encoding="utf-8")
    datasets = [
        {"resolution": 64, "batch_size": 3, "subsets": [{"image_dir": str(pictures), "custom_attributes": {"score": 1}}]},
        {
            "resolution": [128, 64], "batch_size": 2, "network_multiplier": 0.5,
            "subsets": [{"metadata_file": str(folder / "meta.json"), "image_dir": str(described), "num_repeats": 2}],
        },
        {
            "resolution": 128, "batch_size": 1,
            "subsets": [{"image_dir": str(pictures), "conditioning_data_dir": str(folder / "masks"), "flip_aug": True}],
        },
    ]  # fmt: skip
    write_datasets(workshop, "data.json", datasets)
    return workshop


def write_datasets(workshop: Workshop, name: str, datasets: list[dict], **general: object) -> None:
    (workshop.folder / name).write_text(json.dumps({"general": general, "datasets": datasets}), encoding="utf-8")


def datasets_of(workshop: Workshop) -> list[dict]:
    return json.loads((workshop.folder / "data.json").read_text(encoding="utf-8"))["datasets"]


def with_file(workshop: Workshop, name: str = "data.json", **options: object) -> dict[str, object]:
    return {
        "train_data_dir": None,
        "resolution": None,
        "dataset_config": str(workshop.folder / name),
        "masked_loss": True,
    } | options


def trained(workshop: Workshop, name: str) -> Path:
    return workshop.output(name) / "toad.safetensors"


BATCHES_PER_EPOCH = 2 + 5 + 5  # 5 pictures by 3, 10 entries by 2, 5 pictures by 1


CACHES = ("cache_latents", "cache_latents_to_disk", "not cached")


@pytest.fixture(scope="module")
def outcomes(workshop) -> dict[str, Outcome]:
    """An epoch with each way to cache, or not to."""
    return {
        cached: workshop.train(
            cached, **with_file(workshop, **{option: option == cached for option in ("cache_latents", "cache_latents_to_disk")})
        )
        for cached in CACHES
    }


@pytest.mark.parametrize("cached", CACHES)
def test_all_kinds_in_one_run(workshop, outcomes, cached):
    outcome = outcomes[cached]
    assert outcome.code == 0, outcome.output
    steps = [event for event in workshop.events(cached) if event["event"] == "step"]
    assert len(steps) == BATCHES_PER_EPOCH
    assert "dataset 2 (128x64, batch size 2): 5 training images, 10 with repeats" in outcome.output
    with safe_open(trained(workshop, cached), "pt") as file:
        metadata = file.metadata()
    facts = json.loads(metadata["ss_datasets"])
    assert [fact["is_dreambooth"] for fact in facts] == [True, False, True]
    assert facts[1]["subsets"][0]["metadata_file"] == "meta.json"
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "1_toad": {"n_repeats": 1, "img_count": 5},
        "meta.json": {"n_repeats": 2, "img_count": 5},
        "1_toad (2)": {"n_repeats": 1, "img_count": 5},
    }


def test_cached_or_not_the_masks_are_the_same_and_they_matter(workshop, outcomes):
    """Latents are sampled alike in all three runs, so that only what the caches hold can make them differ."""
    runs = [load_file(trained(workshop, name)) for name in CACHES]
    for other in runs[1:]:
        assert all((tensor - runs[0][name]).abs().max() < 1e-4 for name, tensor in other.items())
    datasets = datasets_of(workshop)
    del datasets[2]["subsets"][0]["conditioning_data_dir"]
    write_datasets(workshop, "no_masks.json", datasets)
    outcome = workshop.train("no masks", **with_file(workshop, "no_masks.json", masked_loss=False))
    assert outcome.code == 0, outcome.output
    assert any((tensor - runs[0][name]).abs().max() > 1e-4 for name, tensor in load_file(trained(workshop, "no masks")).items())


def test_transparency_weighs_pixels_without_any_other_option(workshop):
    """The right halves are white and transparent, so that alpha_mask changes weights and no colours; folder or metadata file."""
    pictures = workshop.folder / "transparent" / "1_toad"
    pictures.mkdir(parents=True)
    for number in range(IMAGES):
        write_picture(pictures / f"{number}.png", number)
        with Image.open(pictures / f"{number}.png") as opened:
            picture = opened.convert("RGBA")
        picture.paste((255, 255, 255, 0), (32, 0, 64, 64))
        picture.save(pictures / f"{number}.png")
    entries = {f"{number}.png": {"caption": "toad"} for number in range(IMAGES)}
    (workshop.folder / "transparent.json").write_text(json.dumps(entries), encoding="utf-8")
    folder = {"train_data_dir": str(pictures.parent), "cache_latents": False}
    described = {**folder, "train_data_dir": str(pictures), "in_json": str(workshop.folder / "transparent.json")}
    runs = {"opaque": folder, "folder": {**folder, "alpha_mask": True}, "described": {**described, "alpha_mask": True}}
    for name, options in runs.items():
        outcome = workshop.train(f"transparent {name}", **options)
        assert outcome.code == 0, outcome.output
    opaque, masked, also_masked = (load_file(trained(workshop, f"transparent {name}")) for name in runs)
    assert all(tensor.equal(also_masked[name]) for name, tensor in masked.items())
    assert any((tensor - opaque[name]).abs().max() > 1e-4 for name, tensor in masked.items())


def test_latents_alone_are_enough(workshop):
    """The pictures of the metadata file are removed after they were cached on the disk by the first run."""
    (dataset,) = datasets_of(workshop)[1:2]
    copy = shutil.copytree(dataset["subsets"][0]["image_dir"], workshop.folder / "gone")
    dataset["subsets"][0]["image_dir"] = str(copy)
    write_datasets(workshop, "one.json", [dataset])
    first, again = ({"cache_latents_to_disk": True}, {"cache_latents": True})
    assert workshop.train("with pictures", **with_file(workshop, "one.json", masked_loss=False, **first)).code == 0
    for picture in Path(copy).glob("*.png"):
        picture.unlink()
    outcome = workshop.train("without", **with_file(workshop, "one.json", masked_loss=False, **again))
    assert outcome.code == 0, outcome.output
    assert "5 pictures are not there, only their latents" in outcome.output
    before, after = (load_file(trained(workshop, name)) for name in ("with pictures", "without"))
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


def test_by_flags(workshop):
    """Metadata and masks without a dataset file; two steps each."""
    described = {"train_data_dir": str(workshop.folder / "described"), "in_json": str(workshop.folder / "meta.json")}
    masked = {
        "train_data_dir": str(workshop.folder / "data" / "1_toad"), "masked_loss": True,
        "conditioning_data_dir": str(workshop.folder / "masks"), "cache_info": True,
    }  # fmt: skip
    for name, options in (("described", described | {"dataset_repeats": 2}), ("masked", masked)):
        outcome = workshop.train(f"flags {name}", max_train_epochs=None, max_train_steps=2, **options)
        assert outcome.code == 0, outcome.output
    assert (workshop.folder / "data" / "1_toad" / "metadata_cache.json").exists()


def test_a_class_of_ones_own(workshop):
    options = {"train_data_dir": None, "cache_latents": False, "dataset_class": "tests.data.foreign_datasets.Plain"}
    outcome = workshop.train("class", **options, flip_aug=True)
    assert outcome.code == 0, outcome.output
    losses = [event["losses"] for event in workshop.events("class") if event["event"] == "step"]
    assert len(losses) == 5
    assert max(map(len, losses)) == 2  # the pictures of an item are noised to timesteps of their own
    assert "tests.data.foreign_datasets.Plain makes the batches, at most 2 images in each" in outcome.output
    assert "not used are caption_extension, flip_aug" in outcome.output
