"""A run whose loss is no longer a number ends with a message that helps, and leaves no file with a NaN."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.train.runs import IMAGES, Outcome, Workshop, make_workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("not_finite"), max_train_steps=8, gradient_accumulation_steps=2)


@pytest.fixture(scope="module")
def diverged(workshop) -> Outcome:
    return workshop.train("diverged", learning_rate=1e30, save_every_n_steps=1, save_state=True)


def test_a_diverging_run(workshop, diverged):
    outcome = diverged
    assert outcome.code == 1
    assert "Traceback" not in outcome.output
    (event,) = [event for event in workshop.events("diverged") if event["event"] == "not_finite"]
    last = event["last_finite_step"]
    assert f"the loss is not a finite number at step {last + 1}" in outcome.output
    assert f"the last finite step is {last}" in outcome.output
    pictures = [f"{number}.png" for number in range(IMAGES) if f"{number}.png" in outcome.output]
    assert len(pictures) == len(event["images"]) == 2  # of this step, not of the epoch
    assert "Try a lower learning rate" in outcome.output
    assert (workshop.output("diverged") / f"toad-step{last:08d}-state").is_dir()


def test_no_file_holds_a_nan(workshop, diverged):
    files = [*workshop.output("diverged").rglob("*.safetensors")]
    assert files
    assert not (workshop.output("diverged") / "toad.safetensors").exists()
    for file in files:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file


def test_nothing_finite_yet(workshop):
    """The first step fails: there is nothing to save."""
    outcome = workshop.train("poisoned", constants={"library.train.batch_loss.sample_latents": not_a_number})
    assert outcome.code == 1
    assert "at step 1 (epoch 1); the last finite step is 0" in outcome.output
    assert list(workshop.output("poisoned").rglob("*.safetensors")) == []


def not_a_number(posterior, draws, scale):
    return torch.full_like(posterior.mean, float("nan"))
