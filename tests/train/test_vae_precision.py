"""Whole runs whose VAE makes no finite numbers in half precision, or in none, with and without a cache."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from library.families.autoencoder import encode_images
from library.types import Posterior
from tests.train.runs import IMAGES, Workshop, make_workshop

ENCODE = "library.families.autoencoder.encode_images"
PLACES = {"uncached": {"cache_latents": False}, "in memory": {}, "on disk": {"cache_latents_to_disk": True}}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("vae"), mixed_precision="bf16", max_train_steps=IMAGES)


@pytest.fixture(scope="module")
def uncached(tmp_path_factory) -> Workshop:
    """Where nothing has been encoded before."""
    return make_workshop(tmp_path_factory.mktemp("uncached"), mixed_precision="bf16", max_train_steps=IMAGES)


def encode_narrowly(vae, images):
    posterior = encode_images(vae, images)
    is_wide = next(vae.parameters()).dtype == torch.float32
    return posterior if is_wide else Posterior(posterior.mean * float("inf"), posterior.std)


def encode_to_nothing(vae, images):
    posterior = encode_images(vae, images)
    return Posterior(posterior.mean, posterior.std * float("nan"))


@pytest.mark.parametrize("place", PLACES)
def test_an_overflow_is_encoded_again_in_float32_and_named_once(workshop, place):
    outcome = workshop.train(place, constants={ENCODE: encode_narrowly}, **PLACES[place])
    assert outcome.code == 0, outcome.output
    (event,) = [event for event in workshop.events(place) if event["event"] == "vae_widened"]
    assert len(event["images"]) == 1 and event["images"][0].endswith(".png") and event["precision"] == "bfloat16"
    assert outcome.output.count("it runs in float32 from here on") == 1
    trained = load_file(workshop.output(place) / "toad.safetensors")
    assert all(tensor.isfinite().all() for tensor in trained.values())
    losses = [event["loss"] for event in workshop.events(place) if event["event"] == "step"]
    assert len(losses) == IMAGES and min(losses) > 0.1  # the noise is hidden in latents, not in zeros


def test_a_full_precision_vae_is_not_widened(workshop):
    assert workshop.train("full", no_half_vae=True, constants={ENCODE: encode_narrowly}, cache_latents=False).code == 0
    assert not [event for event in workshop.events("full") if event["event"] == "vae_widened"]


@pytest.mark.parametrize("place", PLACES)
def test_what_no_precision_encodes_ends_the_run_and_is_named(uncached, place):
    outcome = uncached.train(place, constants={ENCODE: encode_to_nothing}, **PLACES[place])
    assert outcome.code == 2
    assert "the VAE makes no finite numbers of" in outcome.output and "Traceback" not in outcome.output
    named = sum(f"{number}.png" in outcome.output.split("no finite numbers of")[-1] for number in range(IMAGES))
    assert named == (1 if place == "uncached" else IMAGES)
    assert not (uncached.output(place) / "toad.safetensors").exists()
