"""Every family with every method, in both precisions, with and without caches: trains what it is to train, saves it, goes on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from library.errors import UserError
from tests.train.matrix import (
    CACHES,
    FAMILIES,
    METHODS,
    PRECISIONS,
    SIZE,
    Row,
    Studio,
    bits,
    differing,
    forget_precision,
    make_studio,
    prediction,
)  # fmt: skip

FIXED_TEXT = ("lora of the U-Net", "fine-tuning")  # the methods that train neither a text encoder nor words
LAST_LAYER_OF_SDXL = (
    "text_encoder1.text_model.encoder.layers.1.",
    "text_encoder1.text_model.final_layer_norm.",
    "network.lora_te1_text_model_encoder_layers_1_",
)


def refusal(row: Row) -> str | None:
    """What is said where a row is no training by design."""
    if row.cached == "latents and text" and row.method not in FIXED_TEXT:
        if row.method == "pivotal":
            return "token_string: this cannot be combined with cache_text_encoder_outputs"
        no_option = row.method.startswith("inversion")
        return f"cache_text_encoder_outputs: {'this is an option of' if no_option else 'the text encoder is trained'}"
    if row.family == "sdxl" and row.method == "inversion by layer":
        return "vectors per layer are for the 16 cross-attention layers of Stable Diffusion 1 and 2"
    return None


ALL = [Row(*names) for names in itertools.product(FAMILIES, METHODS, PRECISIONS, CACHES)]
# Where text can be cached, both are.
ROWS = [row for row in ALL if refusal(row) is None and not (row.cached == "latents" and row.method in FIXED_TEXT)]
CACHED = [row for row in ROWS if row.cached != "nothing"]
REFUSED = [row for row in ALL if refusal(row) and row.precision == "fp32"]  # which is decided without looking at the precision


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):  # which trainings seed
        patch.setattr(os, "fsync", lambda _: None)  # the machine does not fail here
        yield make_studio(tmp_path_factory.mktemp("matrix"))
    forget_precision()


def meant_to_change(row: Row, names: Iterable[str]) -> set[str]:
    """What the method trains, but for what no gradient reaches: the first text encoder of SDXL is read before its last layer."""
    unread = LAST_LAYER_OF_SDXL if row.family == "sdxl" else ()
    return {name for name in names if _trains(row.method, name) and not name.startswith(unread)}


def _trains(method: str, name: str) -> bool:
    of_network = name.startswith("network.") and not name.endswith(".alpha")
    is_vector = name.endswith(".token_embedding.vectors")
    others = {
        "dreambooth": name.startswith(("unet.", "text_encoder")),
        "fine-tuning": name.startswith("unet."),
        "inversion": is_vector,
        "inversion by layer": is_vector,
        "pivotal": of_network or is_vector,
    }
    return others.get(method, of_network)


def beginning_with(row: Row, folder: Path) -> dict[str, object]:
    """The options with which a training goes on from what the one in the folder has saved."""
    if row.method.startswith("inversion"):
        return {"weights": str(folder / "toad.safetensors")}
    if row.method in ("dreambooth", "fine-tuning"):
        return {"pretrained_model_name_or_path": str(folder / "toad")}
    network = {"network_weights": str(folder / "toad.safetensors"), "dim_from_weights": True, "network_dim": None}
    return network | ({"weights": str(folder / "toad-words.safetensors")} if row.method == "pivotal" else {})


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_changes_what_it_is_to_train_and_nothing_else(studio, row):
    outcome = studio.unbroken(row)
    assert differing(outcome.before, outcome.after) == meant_to_change(row, outcome.before)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_saved_is_what_was_trained(studio, row):
    outcome = studio.unbroken(row)
    assert outcome.prediction.isfinite().all()
    reloaded = studio.prepared(row, studio.folder / f"{row}-reloaded", **beginning_with(row, outcome.folder))
    assert not differing(outcome.after, bits(reloaded))
    assert torch.equal(prediction(reloaded), outcome.prediction)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_draws(studio, row):
    sample = studio.unbroken(row).sample
    assert sample.size == SIZE
    assert any(low != high for low, high in sample.getextrema())


@pytest.mark.parametrize("row", [row for row in ROWS if row.saves_states], ids=str)
def test_killed_and_resumed_it_comes_to_the_same_bits(studio, row):
    """As an unbroken one with the same caches."""
    outcome = studio.unbroken(row)
    found, losses = studio.resumed(row)
    assert losses == outcome.losses
    assert not differing(found, outcome.after)


@pytest.mark.parametrize("row", CACHED, ids=str)
def test_with_caches_it_trains_alike(studio, row):
    """To the bit, for models see one picture and one caption at a time: what they say of several at once is rounded otherwise."""
    uncached = studio.unbroken(Row(row.family, row.method, row.precision, "nothing"))
    assert studio.unbroken(row).losses == uncached.losses
    assert not differing(studio.unbroken(row).after, uncached.after)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_what_is_no_training_is_told_before_a_weight_is_read(studio, row):
    with pytest.raises(UserError) as caught:
        studio.plan(row, studio.folder / f"{row}-refused")
    assert str(refusal(row)) in str(caught.value)
