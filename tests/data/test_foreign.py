"""--dataset_class: a class of the user's gives the batches, in our order, with our counters."""
from __future__ import annotations

import random

import pytest
import torch

from library.data.foreign import prepare_foreign
from library.data.foreign_batches import ForeignDataset
from library.data.loader import make_loader
from library.data.order import TrainingOrder
from library.data.report import data_report
from library.errors import UserError
from tests.data.foreign_datasets import Odd

HERE = "tests.data.foreign_datasets"


def prepared_of(name: str, resolution=(64, 128)):
    return prepare_foreign(f"{HERE}.{name}", None, resolution, 64, "--dataset_class")


def batches_of(prepared, first=1, epochs=1, rank=0, world_size=1, workers=0, seed=3):
    order = TrainingOrder([prepared], seed, 1, rank, world_size)
    places = order.places(first, epochs * order.steps_per_epoch)
    return list(make_loader(ForeignDataset(prepared, seed, 100), places, workers))


def test_the_class_is_made_and_counted():
    prepared = prepared_of("Full")
    assert prepared.maker.made_with == (None, None, (64, 128), False)
    assert prepared.maker.steps == 64
    looked_at = prepare_foreign(f"{HERE}.Full", 150, (64, 64), 64, "--dataset_class", debug_dataset=True)
    assert looked_at.maker.made_with == (None, 150, (64, 64), True)
    report = "\n".join(data_report([prepared]).lines())
    assert "batch size 2" in report
    assert f"{HERE}.Full makes the batches, at most 2 images in each, of 9 train images and 3 reg images" in report


def test_an_epoch_holds_each_item_once_in_an_order_of_its_own():
    prepared = prepared_of("Plain")
    batches = batches_of(prepared, epochs=3)
    items = [batch.captions[0] for batch in batches]
    epochs = [items[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == [f"item {number}" for number in range(5)] for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    assert [batch.captions[0] for batch in batches_of(prepared, first=8, epochs=3)] == items[7:]


def test_what_an_item_leaves_out_is_filled_in():
    (batch,) = (batch for batch in batches_of(prepared_of("Plain")) if batch.captions[0] == "item 2")
    assert batch.images.shape == (2, 3, 128, 64) and batch.posterior is None and batch.masks is None
    assert batch.loss_weights.tolist() == [1.0, 1.0]
    assert batch.original_sizes_hw.tolist() == batch.target_sizes_hw.tolist() == [[128, 64], [128, 64]]
    assert batch.crop_top_lefts.tolist() == [[0, 0], [0, 0]]
    assert (batch.flipped, batch.network_multiplier, batch.custom_attributes) == ([False, False], 1.0, [{}, {}])
    assert batch.image_paths == [f"{HERE}.Plain[2] number 0", f"{HERE}.Plain[2] number 1"]


def test_everything_that_an_item_holds_arrives():
    batches = {batch.image_paths[0]: batch for batch in batches_of(prepared_of("Full", (64, 64)))}
    batch = batches["3a"]
    assert batch.images is None and batch.posterior.mean.eq(3).all() and batch.posterior.std.eq(0).all()
    assert batch.loss_weights.tolist() == [1.0, 0.5]
    assert (batch.flipped, batch.network_multiplier) == ([True, False], 0.25)
    assert batch.custom_attributes == [{"score": 3}, {"diff_output_preservation": True}]
    assert batch.original_sizes_hw.tolist() == [[100, 200], [64, 64]]
    assert batch.crop_top_lefts.tolist() == [[0, 3], [0, 0]]
    assert batch.masks.eq(0.25).all()  # a mask wins over alpha
    assert batches["0a"].masks.eq(0.5).all()


def test_epoch_and_step_are_those_of_the_batch():
    batches = batches_of(prepared_of("Full", (64, 64)), epochs=2)
    for batch in batches:
        told = {"steps": 100, "epoch": batch.place.epoch, "step": batch.place.step - 1}
        assert batch.captions[0].startswith(str(told))


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_from_global_generators_depend_on_the_place_alone(workers):
    random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), torch.get_rng_state()
    captions = [batch.captions[0] for batch in batches_of(prepared_of("Full", (64, 64)), workers=workers)]
    assert len(set(captions)) == 5
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    random.seed(2)
    again = [batch.captions[0] for batch in batches_of(prepared_of("Full", (64, 64)), first=3)]
    assert again == captions[2:]


def test_processes_share_the_items_and_draw_at_places_of_their_own():
    shares = [batches_of(prepared_of("Plain"), rank=rank, world_size=2) for rank in (0, 1)]
    real = [batch.captions[0] for share in shares for batch in share if batch.place.share > 0]
    assert sorted(real) == [f"item {number}" for number in range(5)]
    assert [{batch.place.first_position for batch in share} for share in shares] == [{0}, {2}]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "needs either images or latents"),
        (1, "needs either images or latents"),
        (2, "needs 2 captions, found 1"),
        (3, "holds 3 images, but the class says batch_size = 2"),
        (4, "network_multipliers must be the same"),
        (5, r"loss_weights must be of shape \[2\], found \[3\]"),
        (6, "expected a dictionary, found list"),
    ],
)
def test_items_that_are_no_batches(number, expected):
    prepared = prepared_of("Odd")
    places = TrainingOrder([prepared], 3, 1, 0, 1).places(1, len(Odd.WRONG))
    (place,) = (place for place in places if place.samples[0].entry == number)
    with pytest.raises(UserError, match=rf"{HERE}\.Odd\[{number}\].*{expected}"):
        ForeignDataset(prepared, 3, 100)[place]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pictures", '"Pictures" is no class; write package.module.Class'),
        ("my data.Pictures", "is no class"),
        ("nowhere.Pictures", "cannot be imported: there is no module nowhere"),
        (f"{HERE}.Plains", f'the module {HERE} has no "Plains"; did you mean "Plain"?'),
        (f"{HERE}.Empty", "has no batches"),
        (f"{HERE}.NoDataset", "has no __len__ and no __getitem__"),
    ],
)
def test_classes_that_cannot_be_used(name, expected):
    with pytest.raises(UserError, match="--dataset_class") as caught:
        prepare_foreign(name, None, (64, 64), 64, "--dataset_class")
    assert expected in str(caught.value)


def test_a_mistake_inside_the_class_is_shown_to_its_author():
    with pytest.raises(TypeError, match="a mistake inside the class"):
        prepared_of("Faulty")
