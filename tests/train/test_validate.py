"""The validation loss: its numbers, what it leaves untouched, and that every process counts each picture once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from library.checkpoint.best import Best
from library.config.options import ValidationOptions
from library.optim.average import WeightAverage
from library.seeding import seed_from
from library.train.runtime import Runtime
from library.train.signals import Stopped, StopRequest
from library.train.validate import Validator
from library.train.validation_plan import ValidationPlan
from library.types import BatchPlace, SampleRef
from tests.tiny_models import tiny_sd1_parts
from tests.train.runs import Workshop, make_workshop, tensors_hash, write_picture

forked = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")
CAPTION, SEED = "a toad, by night", 7
UNTRAINED = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2, "max_train_steps": 1}  # the first rate is 0
# With dropouts, and with draws for each sample.
DISTURBED = {"network_dropout": 0.1, "shuffle_caption": True, "flip_aug": True, "max_train_epochs": 2, "noise_offset": 0.1}


# --- whole runs ---


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Beside the pictures of the training, a folder that is all held out: two copies of one picture."""
    workshop = make_workshop(tmp_path_factory.mktemp("validate"), max_data_loader_n_workers=0)
    judges = workshop.folder / "judges"
    judges.mkdir()
    for name in ("one", "two"):
        write_picture(judges / f"{name}.png", 100)
        (judges / f"{name}.txt").write_text(CAPTION, encoding="utf-8")
    frogs = {"image_dir": str(workshop.folder / "data" / "1_toad")}
    for name, held_out in (("with", [{"image_dir": str(judges), "validation_split": 1.0}]), ("without", [])):
        datasets = {"general": {"validation_seed": SEED}, "datasets": [{"resolution": 64, "subsets": [frogs, *held_out]}]}
        (workshop.folder / f"{name}.json").write_text(json.dumps(datasets), encoding="utf-8")
    return workshop


def train(workshop: Workshop, name: str, dataset: str, **options: object) -> None:
    file = {"dataset_config": str(workshop.folder / f"{dataset}.json"), "train_data_dir": None, "resolution": None}
    outcome = workshop.train(name, **{**file, **options})
    assert outcome.code == 0, outcome.output


def measured(workshop: Workshop, name: str, rank: int = 0) -> list[dict]:
    return [event for event in workshop.events(name, rank) if event["event"] == "validation"]


@torch.no_grad()
def by_hand(picture: Path, position: int) -> dict[str, float]:
    """The loss of the untrained model at each timestep, in plain torch."""
    parts = tiny_sd1_parts(short=True)
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = parts.vae.encode(pixels).latent_dist.mean * 0.18215
    ids = parts.tokenizers[0](CAPTION, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    states = parts.text_encoders[0].text_model(ids).last_hidden_state
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    losses = {}
    for number, timestep in enumerate((200, 400, 600, 800)):
        seed = seed_from(seed_from("validation", SEED), 1, number, position, "noise")
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
        alpha = float(kept[timestep])
        noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
        prediction = parts.unet(noisy, torch.tensor([timestep]), encoder_hidden_states=states).sample
        losses[str(timestep)] = float(((prediction[0] - noise) ** 2).mean())
    return losses


@forked
@pytest.mark.parametrize("caching, batch_size", [("cache_latents", 1), ("cache_latents_to_disk", 2), ("none", 2)])
def test_the_loss_is_that_of_a_computation_by_hand(workshop, caching, batch_size):
    name = f"by hand {caching}"
    train(workshop, name, "with", train_batch_size=batch_size, **{"cache_latents": False, caching: True, "none": None}, **UNTRAINED)
    (event,) = measured(workshop, name)
    first, second = (by_hand(workshop.folder / "judges" / "one.png", position) for position in (0, 1))
    assert event["images"] == 2
    assert event["by_timestep"] == {t: pytest.approx((first[t] + second[t]) / 2, rel=1e-5) for t in first}
    assert event["loss"] == pytest.approx(sum(event["by_timestep"].values()) / 4, rel=1e-12)


@forked
def test_a_run_that_measures_trains_the_same_weights(workshop):
    train(workshop, "left alone", "without", **DISTURBED)
    train(workshop, "measured", "with", validate_every_n_steps=1, **DISTURBED)
    assert len(measured(workshop, "measured")) == 10
    left_alone, was_measured = (tensors_hash(workshop.output(name) / "toad.safetensors") for name in ("left alone", "measured"))
    assert left_alone == was_measured
    steps = [[event for event in workshop.events(name) if event["event"] == "step"] for name in ("left alone", "measured")]
    assert [event["loss"] for event in steps[0]] == [event["loss"] for event in steps[1]]


@forked
def test_the_same_weights_measure_the_same_whatever_the_seed_of_the_training(workshop):
    for seed in (1, 2):
        train(workshop, f"seed {seed}", "with", seed=seed, **UNTRAINED, network_dropout=0.5)
    assert measured(workshop, "seed 1")[0]["by_timestep"] == measured(workshop, "seed 2")[0]["by_timestep"]


@forked
def test_two_processes_measure_what_one_does(workshop):
    """Three pictures, by two: one batch for each process. The weights are those before the training, for they differ after it."""
    options = {"validation_split": 0.6, "train_batch_size": 2, "train_data_dir": str(workshop.folder / "data"), **UNTRAINED}
    assert workshop.train("alone", **options).code == 0
    outcomes = workshop.train_in_two("both", **options)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    (alone,), (one,), (other,) = measured(workshop, "alone"), measured(workshop, "both"), measured(workshop, "both", rank=1)
    for event in (one, other):
        assert (event["images"], event["loss"], event["by_timestep"]) == (3, alone["loss"], alone["by_timestep"])


# --- the pieces ---


PLACE = BatchPlace(1, 1, 0, (), 0, ends_step=False, ends_epoch=False, share=1.0)
PLACES = [replace(PLACE, samples=(SampleRef(1, 0), SampleRef(1, 1))), replace(PLACE, samples=(SampleRef(1, 2),), first_position=2)]
LOSSES = {0: [[1.0, 2.0], [10.0, 20.0]], 2: [[6.0], [60.0]]}  # by the position of a batch: [timestep][image]


class Scene:
    """A validator over three pictures in two batches, with losses that are known."""

    def __init__(self):
        self.calls: list[str] = []
        self.stop_request = StopRequest()
        self.runtime = Runtime("no", 1, self.stop_request)
        self.places = PLACES
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.weights_seen: list[float] = []
        plan = ValidationPlan(ValidationOptions(), SEED, 3, PLACES, [200, 800], Best("these"))
        method = SimpleNamespace(
            eval=lambda: self.calls.append("eval"),
            train=lambda: self.calls.append("train"),
            before_batch=lambda batch: self.calls.append("before"),
        )
        loss = SimpleNamespace(at_fixed_timesteps=self.loss)
        self.validator = Validator(self.batches, plan, loss, method, SimpleNamespace(param_groups=[]), None, self.runtime)

    def batches(self) -> Iterator[SimpleNamespace]:
        return (SimpleNamespace(place=place) for place in self.places)

    def loss(self, batch, seed: int) -> torch.Tensor:
        self.calls.append("loss")
        self.weights_seen.append(self.weight.item())
        torch.rand(1)
        return torch.tensor(LOSSES[batch.place.first_position])


def test_the_mean_is_over_pictures_not_batches():
    found = Scene().validator()
    assert found.by_timestep == {"200": 3.0, "800": 30.0}
    assert (found.loss, found.images) == (16.5, 3)


def test_the_network_is_in_evaluation_mode_and_back():
    scene = Scene()
    state = torch.get_rng_state()
    scene.validator()
    assert scene.calls == ["eval", "before", "loss", "before", "loss", "train"]
    assert torch.get_rng_state().equal(state)


def test_each_process_adds_its_share(monkeypatch):
    """This one has the first batch; what comes from the other is the second."""
    scene = Scene()
    scene.places = PLACES[:1]
    other = torch.tensor([[0.0, 0.0, 6.0], [0.0, 0.0, 60.0]], dtype=torch.float64)
    monkeypatch.setattr(Runtime, "sum_everywhere", lambda self, losses: losses + other)
    found = scene.validator()
    assert (found.by_timestep, found.loss, found.images) == ({"200": 3.0, "800": 30.0}, 16.5, 3)
    assert scene.calls.count("loss") == 1


def test_averaged_weights_are_measured_and_the_others_trained():
    scene = Scene()
    average = SimpleNamespace(
        param_groups=[{"params": [scene.weight], "train_mode": True}],
        eval=lambda: scene.weight.data.fill_(5.0),
        train=lambda: scene.weight.data.fill_(1.1),  # not quite what it was
    )
    scene.weight.data.fill_(1.0)
    replace(scene.validator, optimizer=average)()
    assert scene.weights_seen == [5.0, 5.0]
    assert scene.weight.item() == 1.0
    ema = WeightAverage([scene.weight], 0.99)
    ema.averages[0].fill_(3.0)
    replace(scene.validator, average=ema)()
    assert scene.weights_seen[2:] == [3.0, 3.0]
    assert scene.weight.item() == 1.0


def test_a_stop_cuts_it_short():
    scene = Scene()
    scene.stop_request.ask(signal.SIGTERM)
    with pytest.raises(Stopped):
        scene.validator()
    assert scene.calls == ["eval", "train"]
