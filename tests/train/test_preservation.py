"""Output preservation and prior prediction: the loss by its definition, exactly nothing to learn at first, runs, and their effect."""

from __future__ import annotations

import functools
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from library.config.options import LossOptions, NetworkOptions, NoiseOptions, OptimizerOptions
from library.diffusion.draws import Draws
from library.diffusion.schedule import scaled_linear_schedule
from library.diffusion.training_loss import DiffusionTraining
from library.errors import UserError
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.methods.adapter import AdapterMethod
from library.methods.lycoris import check_switch
from library.train.batch_loss import BatchLoss
from library.types import Batch, BatchPlace, ClassPrompts, Posterior, TextSettings
from networks import lora
from tests.reference import preservation as reference
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_parts, tiny_sd2_parts, tiny_sdxl_parts
from tests.train.runs import Workshop, make_workshop, tensors_hash

MODELS = {
    "sd1": (tiny_sd1_parts, StableDiffusion()),
    "sd2": (tiny_sd2_parts, StableDiffusion(name="sd_v2", objective="v")),
    "sdxl": (tiny_sdxl_parts, StableDiffusionXL()),
}
CAPTIONS = ["a photo of sls frog", "frog", "a cat on a stone"]
MARK = {"diff_output_preservation": True}
NEEDS_PROCESSES = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")


def make_batch(**changes) -> Batch:
    """Three pictures of 64 pixels, of which the middle one is marked."""
    generator = torch.Generator().manual_seed(3)
    sizes = torch.tensor([[64, 64]] * 3)
    place = BatchPlace(1, 1, 0, (), 0, ends_step=True, ends_epoch=False, share=1.0)
    return Batch(
        place, CAPTIONS, ["1.png", "2.png", "3.png"], torch.tensor([1.0, 1.0, 0.5]), None,
        Posterior(torch.randn(3, 4, 8, 8, generator=generator), torch.zeros(3, 4, 8, 8)), None, sizes, torch.zeros_like(sizes), sizes,
        [False] * 3, [0, 0, 1], custom_attributes=[{}, MARK, {}], **changes,
    )  # fmt: skip


class Trial:
    """A model with a network that is attached to it, and the loss of batches."""

    def __init__(self, name: str = "sd1", checkpointing: bool = False, autocast=nullcontext, loss: LossOptions | None = None, **network):
        make, self.family = MODELS[name]
        self.parts = make()
        self.method = AdapterMethod(
            NetworkOptions(network_module="networks.lora", network_args=("conv_dim=2",), **network),
            OptimizerOptions(learning_rate=1e-3), checkpointing, seed=1,
        )  # fmt: skip
        self.method.attach(self.parts, self.family.name)
        self.method.train()
        runtime = SimpleNamespace(device=torch.device("cpu"), frozen_dtype=torch.float32, autocast=autocast, wanted_by_any=bool)
        self.diffusion = DiffusionTraining(
            scaled_linear_schedule(False), self.family.objective, NoiseOptions(), loss or LossOptions()
        )
        self.seen: list[torch.Tensor] = []
        self.loss = BatchLoss(
            self.family, self.parts, self.diffusion, runtime, None, TextSettings(), 7, self.method,
            lambda batch, timesteps, losses: self.seen.append(losses.detach()),
        )  # fmt: skip

    def gradients(self, losses: torch.Tensor) -> list[torch.Tensor]:
        """Of the parameters that the losses depend on."""
        found = torch.autograd.grad(losses.sum(), list(self.method.network.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    def randomise(self) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.method.network.parameters():
                parameter.normal_(0, 0.2, generator=generator)


PROMPTS = ClassPrompts([0, 2], ["frog", "cat"], 0.7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("trained", ["all", "unet", "text"])
def test_the_loss_is_that_of_its_definition(trained, masked):
    sides = {"network_train_unet_only": trained == "unet", "network_train_text_encoder_only": trained == "text"}
    trial = Trial(loss=LossOptions(min_snr_gamma=5.0), **sides)
    trial.randomise()
    masks = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(5)) if masked else None
    batch = make_batch(class_prompts=PROMPTS)
    batch.masks = masks
    found = trial.loss(batch)

    corrupted = trial.diffusion.corrupt(batch.posterior.mean * trial.family.latent_scale, Draws(7, batch.place, 3))
    samples = []
    for number in range(3):
        snr = float(trial.diffusion.schedule.snr(corrupted.timesteps)[number])
        weight = min(snr, 5.0) / snr
        mask = masks[number].view(8, 8, 8, 8).mean((1, 3)) if masked else torch.ones(8, 8)
        prompt = dict(zip(PROMPTS.samples, PROMPTS.prompts, strict=True)).get(number)
        samples.append({
            "noisy": corrupted.noisy_latents[number], "timestep": corrupted.timesteps[number], "noise": corrupted.noise[number],
            "caption": CAPTIONS[number], "marked": number == 1, "mask": mask, "weight": weight * float(batch.loss_weights[number]),
            "prompt": prompt, "prompt_weight": 0.7 * weight,
        })  # fmt: skip
    plain = tiny_sd1_parts()
    base = plain.unet, plain.text_encoders[0].text_model
    adapters = trial.method.network.state_dict()
    changed = reference.merged(base[0], "lora_unet", adapters), reference.merged(base[1], "lora_te_text_model", adapters)
    expected = reference.losses(changed, base, plain.tokenizers[0], samples)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected[1] > 1e-3  # the network has changed what the model predicts
    pictures_alone = reference.losses(changed, base, plain.tokenizers[0], [sample | {"prompt": None} for sample in samples])
    assert (expected - pictures_alone)[0] > 1e-4
    torch.testing.assert_close(trial.seen[0], pictures_alone, atol=1e-5, rtol=1e-4)  # what logs split up


def in_bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("autocast", [nullcontext, in_bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_at_first_there_is_nothing_to_learn(name, autocast, checkpointing):
    """Exactly: no loss, no gradient. The samples that are not marked are as they would be without the one that is."""
    trial = Trial(name, checkpointing, autocast, network_dropout=0.1)
    alone = make_batch()
    alone.custom_attributes = [MARK] * 3
    alone.class_prompts = ClassPrompts([0, 1, 2], ["frog", "frog", "cat"], 1.0)
    losses = trial.loss(alone)
    assert losses.tolist() == [0, 0, 0]
    assert not any(gradient.any() for gradient in trial.gradients(losses))
    mixed, unmarked = make_batch(class_prompts=PROMPTS), make_batch()
    unmarked.custom_attributes = [{}] * 3
    expected = trial.loss(unmarked)
    assert torch.equal(trial.loss(mixed)[[0, 2]], expected[[0, 2]])
    assert expected.min() > 0


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_checkpointing_changes_no_number_and_the_strength_of_the_dataset_comes_back(name):
    found = {}
    for checkpointing in (False, True):
        trial = Trial(name, checkpointing)
        trial.randomise()
        batch = make_batch(class_prompts=PROMPTS)
        batch.network_multiplier = 0.5
        trial.method.before_batch(batch)
        losses = trial.loss(batch)
        found[checkpointing] = [losses.detach(), *trial.gradients(losses)]
        assert {adapter.multiplier for adapter in trial.method.network.loras} == {0.5}
    assert all(torch.equal(one, other) for one, other in zip(found[False], found[True], strict=True))
    assert sum(bool(gradient.any()) for gradient in found[False][1:]) > 100


def test_text_that_is_cached_has_the_same_loss():
    trial = Trial(network_train_unet_only=True)
    trial.randomise()
    batch = make_batch(class_prompts=PROMPTS)
    encode = functools.partial(trial.family.encode_text, trial.parts, settings=TextSettings())
    cached = replace(
        batch, conditioning=encode(captions=CAPTIONS), class_prompts=replace(PROMPTS, conditioning=encode(captions=PROMPTS.prompts))
    )
    expected = trial.loss(batch)
    trial.parts.text_encoders.clear()
    assert torch.equal(trial.loss(cached), expected)


def test_held_out_pictures_are_measured_without_class_prompts():
    trial = Trial()
    trial.randomise()
    losses = trial.loss.at_fixed_timesteps(make_batch(class_prompts=PROMPTS), 1)
    assert torch.equal(losses, trial.loss.at_fixed_timesteps(make_batch(), 1))


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_lycoris_without_effect_is_the_base(algorithm):
    pytest.importorskip("lycoris.kohya", reason="lycoris-lora is not installed or cannot be imported here")
    plain, parts = tiny_sd1_parts(), tiny_sd1_parts()
    network = NetworkOptions(network_module="lycoris.kohya", network_dim=2, network_args=(f"algo={algorithm}",))
    method = AdapterMethod(network, OptimizerOptions(learning_rate=1e-3), False, seed=1)
    method.attach(parts, "sd_v1")
    method.train()
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1)
        inputs = torch.ones(1, 4, 8, 8), torch.tensor([5])
        with method.base():
            found = parts.unet(*inputs, parts.text_encoders[0](torch.arange(77)[None])).sample
        expected = plain.unet(*inputs, plain.text_encoders[0](torch.arange(77)[None])).sample
        changed = parts.unet(*inputs, parts.text_encoders[0](torch.arange(77)[None])).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (changed - expected).abs().max() > 1e-2


@pytest.mark.parametrize("arguments", [("dora_wd=True",), ("algo=loha", "dora_wd = 1")])
def test_dora_of_lycoris_cannot_be_switched_off(arguments):
    network = NetworkOptions(network_module="lycoris.kohya", network_args=arguments)
    with pytest.raises(UserError, match="network_args dora_wd: with it LyCORIS cannot be switched off"):
        check_switch(network)
    check_switch(replace(network, network_args=("dora_wd=False",)))
    check_switch(replace(network, network_module="networks.lora"))


def test_dora_in_a_file_cannot_be_switched_off(tmp_path):
    file = tmp_path / "dora.safetensors"
    save_file({"lora_unet_conv_in.dora_scale": torch.ones(1)}, file)
    network = NetworkOptions(network_module="lycoris.kohya", network_weights=str(file), dim_from_weights=True)
    with pytest.raises(UserError, match="dora.safetensors is a DoRA: with it LyCORIS"):
        check_switch(network)
    check_switch(replace(network, dim_from_weights=False))


def test_a_method_without_a_base_refuses_marked_samples():
    trial = Trial()
    trial.loss.method = SimpleNamespace(base=None, trains_text_encoder=False)
    with pytest.raises(UserError, match="custom_attributes of 1.png: diff_output_preservation needs the base model"):
        trial.loss(make_batch())


# --- runs ---



@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """A folder with a class prompt, and one that is marked; batches hold both."""
    folder = tmp_path_factory.mktemp("preservation")
    workshop = make_workshop(folder, prior_prediction=True, max_train_steps=6, save_every_n_steps=3, save_state=True, flip_aug=True)
    source = folder / "data" / "1_toad"
    marked = folder / "marked"
    marked.mkdir()
    for path in sorted(source.glob("0.*")) + sorted(source.glob("1.*")):
        path.rename(marked / path.name)
    subsets = [
        {"image_dir": str(source), "class_prompt": "a toad"},
        {"image_dir": str(marked), "custom_attributes": MARK},
    ]
    content = {"datasets": [{"resolution": 64, "batch_size": 3, "subsets": subsets}]}
    (folder / "data.json").write_text(json.dumps(content), encoding="utf-8")
    return replace(workshop, options={**workshop.options, "train_data_dir": None, "dataset_config": str(folder / "data.json")})


@pytest.fixture(scope="module")
def unbroken(workshop) -> str:
    outcome = workshop.train("unbroken")
    assert outcome.code == 0, outcome.output
    assert "note: diff_output_preservation: the target of 2 pictures is what the base model predicts" in outcome.output
    assert 'note: prior_prediction: beside 3 pictures the model keeps what it predicts of "a toad"' in outcome.output
    return tensors_hash(workshop.output("unbroken") / "toad.safetensors")


@NEEDS_PROCESSES
def test_killed_and_resumed(workshop, unbroken):
    assert workshop.killed_and_resumed(backward=5) == unbroken


@NEEDS_PROCESSES
def test_with_workers_the_same(workshop, unbroken):
    assert workshop.with_workers() == unbroken


@NEEDS_PROCESSES
@pytest.mark.parametrize("on_disk", [False, True])
def test_captions_that_are_cached(workshop, on_disk):
    weights = {}
    for name, options in {"encoded": {}, "cached": {"cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": on_disk}}.items():
        outcome = workshop.train(f"{name}-{on_disk}", network_train_unet_only=True, save_state=False, **options)
        assert outcome.code == 0, outcome.output
        weights[name] = load_file(workshop.output(f"{name}-{on_disk}") / "toad.safetensors")
    for key, tensor in weights["encoded"].items():
        torch.testing.assert_close(weights["cached"][key], tensor, atol=1e-5, rtol=1e-3)


@NEEDS_PROCESSES
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prior_prediction": None}, 'subsets]] 1 class_prompt: only regularisation pictures are drawn'),
        ({"prior_loss_weight": 0.0}, "prior_prediction: prior_loss_weight = 0 leaves this out"),
    ],
)
def test_mistakes(workshop, options, expected):
    outcome = workshop.train("mistaken", **options)
    assert outcome.code == 2
    assert expected in outcome.output
    assert not (workshop.output("mistaken") / "toad.safetensors").exists()


@NEEDS_PROCESSES
def test_the_class_stays_nearer_to_the_base(tmp_path):
    """After the same steps on the same pictures, with and without."""
    model = str(tiny_sd1_folder(tmp_path / "model_of_parts"))
    options = {"max_train_steps": 12, "train_batch_size": 5, "learning_rate": 3e-3, "network_dim": 4}
    workshop = make_workshop(tmp_path, pretrained_model_name_or_path=model, **options)
    drifts = {}
    for name, options in {"without": {}, "with": {"prior_prediction": True, "class_prompt": "toad", "prior_loss_weight": 3.0}}.items():
        outcome = workshop.train(name, **options)
        assert outcome.code == 0, outcome.output
        drifts[name] = drift(workshop, name)
    assert 0 < drifts["with"] < 0.5 * drifts["without"]


def drift(workshop: Workshop, name: str) -> float:
    """How far what the trained model predicts of the class is from what the base model predicts."""
    predictions = []
    for file in (None, workshop.output(name) / "toad.safetensors"):
        parts, family = tiny_sd1_parts(), StableDiffusion()
        if file is not None:
            network, weights = lora.create_network_from_weights(1.0, file, parts.vae, parts.text_encoders[0], parts.unet, for_inference=True)
            network.merge_to(parts.text_encoders[0], parts.unet, weights)
        generator = torch.Generator().manual_seed(11)
        noisy, timesteps = torch.randn(16, 4, 8, 8, generator=generator), torch.randint(0, 1000, (16,), generator=generator)
        with torch.no_grad():
            predictions.append(family.predict(parts, noisy, timesteps, family.encode_text(parts, ["toad"] * 16, TextSettings())))
    return float((predictions[0] - predictions[1]).square().mean())
