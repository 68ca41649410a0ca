"""The walk shows the batches that training gets, each as a picture that it names, and obeys S, E, Esc and Q."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from library.data.dataset import TrainingDataset
from library.data.foreign_batches import ForeignDataset
from library.data.loader import make_loader
from library.data.order import TrainingOrder
from library.errors import UserError
from library.review.looked_at import LookedAtDataset
from library.review.sheet import MARGIN
from library.review.views import views_of
from library.review.walk import HELP, BatchWalk
from tests.data.test_foreign import prepared_of
from tests.data.tiny_datasets import prepare, subset_of, write_images

LAST_STEP = 20


def make_walk(folder, prepared, dataset=None, first_step=1, **options) -> BatchWalk:
    dataset = dataset or LookedAtDataset(prepared, 5, LAST_STEP, 0.5)
    return BatchWalk(
        prepared=prepared,
        order=TrainingOrder(prepared, 5, 1, 0, 1),
        load=lambda places: make_loader(dataset, places, workers=0),
        first_step=first_step,
        last_step=LAST_STEP,
        folder=folder / "out",
        prefix="toad_",
        **options,
    )


@pytest.fixture
def prepared(tmp_path):
    first = prepare(subset_of(write_images(tmp_path / "a"), num_repeats=2, flip_aug=True, caption={"shuffle_caption": True}))
    return first + prepare(subset_of(write_images(tmp_path / "b", [(64, 64)])), resolution=(64, 64))


def shown(folder) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_what_is_shown_is_what_training_gets(prepared, tmp_path, capsys):
    make_walk(tmp_path, prepared).walk(iter("sss"))
    printed = capsys.readouterr().out
    dataset = TrainingDataset(prepared, 5, LAST_STEP, 0.5)
    places = list(TrainingOrder(prepared, 5, 1, 0, 1).places(1, 4))
    assert shown(tmp_path) == [f"toad_e000001_s{step:08d}_m00.png" for step in range(1, 5)]
    for place in places:
        batch, path = dataset[place], tmp_path / "out" / f"toad_e000001_s{place.step:08d}_m00.png"
        title = f"epoch 1, step {place.step} of 20, dataset {place.samples[0].dataset + 1}, {len(batch.captions)} picture"
        assert title in printed and str(path) in printed
        sheet = np.asarray(Image.open(path))
        factor = -(-256 // max(views_of(batch)[0].size))
        pixels = views_of(batch)[0].pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        top = MARGIN + 18 + MARGIN
        assert np.array_equal(sheet[top : top + pixels.shape[0], MARGIN : MARGIN + pixels.shape[1]], pixels)
        told = printed[printed.index(str(path)) + len(str(path)) :].split("\n\n")[0].split("loss weight")
        for text, caption, image, flipped in zip(told, batch.captions, batch.image_paths, batch.flipped, strict=False):
            assert f"{image}\n     caption: {caption}\n" in text
            assert ("not flipped" in text) != flipped
        assert len(told) == len(batch.captions) + 1


def test_repeats_are_counted(prepared, tmp_path, capsys):
    make_walk(tmp_path, prepared).walk(iter("s" * 30))
    lines = capsys.readouterr().out.splitlines()
    expected = []
    for place in TrainingOrder(prepared, 5, 1, 0, 1).places(1, LAST_STEP):
        for ref in place.samples:
            repeats = prepared[ref.dataset].settings.subsets[0].num_repeats
            expected.append(f"repeat {ref.entry % repeats + 1} of {repeats}")
    assert [line.strip() for line in lines if "repeat " in line] == expected
    assert lines[-1] == f"the run ends here, after step {LAST_STEP}"


def test_keys(prepared, tmp_path, capsys):
    steps = TrainingOrder(prepared, 5, 1, 0, 1).steps_per_epoch
    assert 2 < steps <= LAST_STEP // 2
    make_walk(tmp_path, prepared).walk(iter("xesqs"))
    assert shown(tmp_path) == [
        "toad_e000001_s00000001_m00.png",
        f"toad_e000002_s{steps + 1:08d}_m00.png",
        f"toad_e000002_s{steps + 2:08d}_m00.png",
    ]
    assert capsys.readouterr().out.count(HELP) == 2  # at the start, and for the X


def test_the_epoch_after_the_last_is_the_end(prepared, tmp_path, capsys):
    make_walk(tmp_path, prepared, first_step=LAST_STEP).walk(iter(["e", "e", "s"]))
    assert len(shown(tmp_path)) == 1
    assert capsys.readouterr().out.count("the run ends here") == 1


def test_with_nobody_there_the_first_batch_of_each_dataset_is_shown(prepared, tmp_path, capsys):
    make_walk(tmp_path, prepared).walk(iter(()))
    printed = capsys.readouterr().out
    assert len(shown(tmp_path)) == 2
    assert "dataset 1, " in printed and "dataset 2, " in printed


def test_a_folder_that_cannot_be_written(prepared, tmp_path):
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="_m00.png cannot be written: "):
        make_walk(tmp_path, prepared).walk(iter(()))


def test_masks_class_pictures_and_weights_are_told(tmp_path, capsys):
    images = write_images(tmp_path / "a", [(64, 64)], alpha=True)
    others = write_images(tmp_path / "b", [(64, 64)])
    subsets = subset_of(images, alpha_mask=True, custom_attributes={"score": 3}), subset_of(others, is_reg=True)
    prepared = prepare(*subsets, resolution=(64, 64), network_multiplier=0.5)
    make_walk(tmp_path, prepared).walk(iter("s"))
    printed = capsys.readouterr().out
    for word in ("regularisation picture", "loss weight 0.5", "network multiplier 0.5", "custom attributes: {'score': 3}", "mask: "):
        assert word in printed


def test_pictures_that_are_not_there_are_grey_among_the_others(tmp_path):
    images = write_images(tmp_path / "a", [(64, 64)] * 4, alpha=True)
    prepared = prepare(subset_of(images, alpha_mask=True), resolution=(64, 64), batch_size=4)
    (place,) = TrainingOrder(prepared, 5, 1, 0, 1).places(1, 1)
    whole = TrainingDataset(prepared, 5, LAST_STEP, 0.5)[place]
    gone = prepared[0].records[2]
    number, gone.path = whole.image_paths.index(gone.path), "frog.npz"
    batch = LookedAtDataset(prepared, 5, LAST_STEP, 0.5)[place]
    others = [other for other in range(4) if other != number]
    assert torch.equal(batch.images[others], whole.images[others]) and torch.equal(batch.masks[others], whole.masks[others])
    assert (batch.images[number] == 128).all() and (batch.masks[number] == 1).all()
    seen = views_of(batch, prepared[0].absent)
    assert [view.absent for view in seen if view.pixels is None] == ["only its cached latents are there"]


def test_pictures_that_are_still_to_be_drawn(tmp_path, capsys):
    subset = subset_of(tmp_path / "class", is_reg=True, class_prompt="a frog", num_class_images=2)
    prepared = prepare(subset_of(write_images(tmp_path / "a", [(64, 64)])), subset, resolution=(64, 64))
    make_walk(tmp_path, prepared).walk(iter("s"))
    assert 'there is no picture: to be drawn from "a frog"' in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Plain", "Full"])
def test_batches_of_a_class_of_the_users(name, tmp_path, capsys):
    prepared = prepared_of(name)
    make_walk(tmp_path, [prepared], ForeignDataset(prepared, 5, LAST_STEP)).walk(iter("s"))
    printed = capsys.readouterr().out
    assert len(shown(tmp_path)) == 2
    assert ("these are latents, not a picture" in printed) == (name == "Full")
