"""--paired_prior: the step of the DreamBooth paper, compared with one that is written out, and whole runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from library.config.options import LossOptions, NetworkOptions, NoiseOptions, OptimizerOptions
from library.diffusion.draws import Draws
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining
from library.families.sd import StableDiffusion
from library.methods.adapter import AdapterMethod
from library.train.batch_loss import BatchLoss
from library.types import Batch, BatchPlace, Posterior, TextSettings
from tests.tiny_models import tiny_sd1_parts
from tests.train.runs import Workshop, make_workshop, tensors_hash, write_picture

NEEDS_PROCESSES = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")
CLASS_PICTURES = 3


# --- the loss ---


def test_the_loss_and_its_gradient_are_those_of_the_paper():
    """Two pictures and two class pictures: mean over the one, plus the weight times the mean over the other (diffusers' DreamBooth)."""
    parts, family = tiny_sd1_parts(), StableDiffusion()
    method = AdapterMethod(NetworkOptions(network_module="networks.lora"), OptimizerOptions(), False, seed=1)
    method.attach(parts, family.name)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    sizes = torch.tensor([[64, 64]] * 4)
    captions = ["sls frog", "sls frog", "frog", "frog"]
    batch = Batch(
        BatchPlace(1, 1, 0, (), 0, ends_step=True, ends_epoch=False, share=1.0), captions, [f"{n}.png" for n in range(4)],
        torch.tensor([1.0, 1.0, 0.3, 0.3]), None,
        Posterior(torch.randn(4, 4, 8, 8, generator=generator), torch.zeros(4, 4, 8, 8)), None, sizes, sizes * 0, sizes, [False] * 4,
        [0, 0, 1, 1], loss_factor=2.0,
    )  # fmt: skip
    diffusion = DiffusionTraining(scaled_linear_schedule(False), family.objective, NoiseOptions(), LossOptions())
    runtime = SimpleNamespace(device=torch.device("cpu"), frozen_dtype=torch.float32, autocast=torch.enable_grad, wanted_by_any=bool)
    seen = []
    loss = BatchLoss(
        family, parts, diffusion, runtime, None, TextSettings(), 7, method, lambda *facts: seen.append(facts[2].detach())
    )(batch).mean()

    corrupted = diffusion.corrupt(batch.posterior.mean * family.latent_scale, Draws(7, batch.place, 4))
    text = family.encode_text(parts, captions, TextSettings())
    prediction = family.predict(parts, corrupted.noisy_latents, corrupted.timesteps, text, batch)
    own, of_class = prediction.chunk(2)
    own_noise, class_noise = corrupted.noise.chunk(2)
    mse = torch.nn.functional.mse_loss
    expected = mse(own, own_noise, reduction="mean") + 0.3 * mse(of_class, class_noise, reduction="mean")

    torch.testing.assert_close(loss, expected)
    weights = list(method.network.parameters())
    for found, wanted in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(seen[0][:2].mean(), mse(own, own_noise))  # what logs split up is what it was


# --- runs ---


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Five pictures and three class pictures; batches of two and two, so that an epoch has three steps, the last of one and one."""
    folder = tmp_path_factory.mktemp("paired")
    options = {"paired_prior": True, "prior_loss_weight": 0.5, "train_batch_size": 2, "max_train_steps": 7, "flip_aug": True}
    workshop = make_workshop(folder, save_every_n_steps=4, save_state=True, **options)
    classes = folder / "classes" / "1_animal"
    classes.mkdir(parents=True)
    for number in range(CLASS_PICTURES):
        write_picture(classes / f"class{number}.png", 50 + number)
    return replace(workshop, options={**workshop.options, "reg_data_dir": str(folder / "classes")})


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    outcome = workshop.train("unbroken")
    assert outcome.code == 0, outcome.output
    assert "3 regularisation images, in turn, 5 an epoch, as many in each batch as others" in outcome.output
    assert "batches per epoch: 3; optimizer steps per epoch: 3" in outcome.output
    assert "effective batch: 2 (batch x 1 processes x 1 accumulated), and as many class pictures" in outcome.output
    return tensors_hash(workshop.output("unbroken") / "toad.safetensors")


@NEEDS_PROCESSES
def test_the_loss_of_a_step_is_the_sum_of_two_means(workshop, unbroken):
    steps = [event for event in workshop.events("unbroken") if event["event"] == "step"]
    assert len(steps) == 7
    for step in steps:
        own, of_class = step["losses"]["dataset/1_toad"], step["losses"]["dataset/1_animal"]  # the weight is in the second one
        assert step["loss"] == pytest.approx(own + of_class, rel=1e-5)


@NEEDS_PROCESSES
def test_killed_and_resumed(workshop, unbroken):
    assert workshop.killed_and_resumed(backward=6) == unbroken


@NEEDS_PROCESSES
def test_with_workers_the_same(workshop, unbroken):
    assert workshop.with_workers() == unbroken


@NEEDS_PROCESSES
def test_another_kind_of_step_does_not_go_on(workshop, unbroken):
    outcome = workshop.train("unbroken", "--resume", "latest", paired_prior=None, max_train_steps=9)
    assert outcome.code == 2
    assert "paired_prior is false here and true in the state" in outcome.output


@NEEDS_PROCESSES
def test_two_processes_agree_on_the_sum_of_two_means(workshop):
    """Each has two pictures and two class pictures."""
    outcomes = workshop.train_in_two("two", max_train_steps=1, save_state=False, save_every_n_steps=None)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    events = [next(event for event in workshop.events("two", rank) if event["event"] == "step") for rank in (0, 1)]
    assert events[0]["loss"] == events[1]["loss"]
    losses = events[0]["losses"]
    assert events[0]["loss"] == pytest.approx(losses["dataset/1_toad"] + losses["dataset/1_animal"], rel=1e-5)


@NEEDS_PROCESSES
def test_the_whole_model_and_class_pictures_that_are_drawn(tmp_path):
    """As a job does it: no class picture is there; train_db.py draws them first."""
    workshop = make_workshop(tmp_path, "train_db.py", paired_prior=True, max_train_steps=2, learning_rate=1e-5, network_module=None)
    few = {"library.train.class_images.STEPS": 2}
    subsets = [
        {"image_dir": str(tmp_path / "data" / "1_toad")},
        {"image_dir": str(tmp_path / "drawn"), "is_reg": True, "num_class_images": 3, "class_prompt": "an animal"},
    ]
    (tmp_path / "data.json").write_text(json.dumps({"datasets": [{"resolution": 64, "subsets": subsets}]}), encoding="utf-8")
    outcome = workshop.train("model", constants=few, train_data_dir=None, dataset_config=str(tmp_path / "data.json"))
    assert outcome.code == 0, outcome.output
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [f"class_image_0000{n}.png" for n in (1, 2, 3)]
    steps = [event for event in workshop.events("model") if event["event"] == "step"]
    for step in steps:
        assert step["loss"] == pytest.approx(step["losses"]["dataset/1_toad"] + step["losses"]["dataset/drawn"], rel=1e-5)
