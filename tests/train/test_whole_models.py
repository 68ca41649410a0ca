"""Whole runs of train_db.py and fine_tune.py: what changes and what stays, what is saved, killed runs that go on to the bit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.config.options import ModelOptions
from library.families.detect import identify
from library.methods.rates import ENCODERS
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_parts, tiny_sd1_single_file, tiny_sd2_folder, tiny_sdxl_folder
from tests.train.runs import KILL, Strike, Workshop, make_workshop, write_picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the processes of these tests are forked")

DB, FT, XL = "train_db.py", "fine_tune.py", "sdxl_train.py"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    """Pictures in folders with names, the same pictures in a metadata file, and regularisation pictures."""
    workshop = make_workshop(tmp_path_factory.mktemp("full"), DB, max_train_steps=2, save_every_n_steps=1, save_state=True)
    pictures = workshop.folder / "data" / "1_toad"
    entries = {path.stem: {"caption": path.with_suffix(".txt").read_text(encoding="utf-8")} for path in pictures.glob("*.png")}
    (workshop.folder / "meta.json").write_text(json.dumps(entries), encoding="utf-8")
    (workshop.folder / "reg" / "1_frog").mkdir(parents=True)
    for number in range(5):
        write_picture(workshop.folder / "reg" / "1_frog" / f"{number}.png", 50 + number)
    tiny_sd1_folder(workshop.folder / "whole")  # with all its blocks, as single files have them
    tiny_sdxl_folder(workshop.folder / "sdxl")
    (workshop.folder / "prompts.txt").write_text("a toad --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    return workshop


def of(workshop: Workshop, script: str) -> Workshop:
    """The same pictures as the script wants them."""
    if script == DB:
        return workshop
    described = {"train_data_dir": str(workshop.folder / "data" / "1_toad"), "in_json": str(workshop.folder / "meta.json")}
    if script == XL:
        described["pretrained_model_name_or_path"] = str(workshop.folder / "sdxl")
    return replace(workshop, script=script, options={**workshop.options, **described, "caption_extension": None})


def trained(workshop: Workshop, name: str, **options: object) -> Path:
    outcome = workshop.train(name, **options)
    assert outcome.code == 0, outcome.output
    return workshop.output(name)


def parts_of(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a saved model by part, in the dtypes that they have in the file."""
    family = identify(ModelOptions(pretrained_model_name_or_path=str(path)))
    parts = family.load(ModelOptions(), torch.float32, "cpu")
    modules = {"unet": parts.unet, **dict(zip(ENCODERS, parts.text_encoders, strict=False)), "vae": parts.vae}
    return {name: module.state_dict() for name, module in modules.items()}


def changed(path: Path, short: bool = True) -> list[str]:
    """The parts that are no longer those of the tiny model; nearly each tensor of such a part must have changed."""
    parts = tiny_sd1_parts(short=short)
    before = {"unet": parts.unet, "text_encoder": parts.text_encoders[0], "vae": parts.vae}
    moved = {}
    for name, state in parts_of(path).items():
        moved[name] = [not torch.equal(state[key], tensor) for key, tensor in before[name].state_dict().items()]
    assert all(not any(flags) or sum(flags) > 0.9 * len(flags) for flags in moved.values())
    return [name for name, flags in moved.items() if any(flags)]


MATRIX = [
    (DB, {}, ["unet", "text_encoder"]),
    (DB, {"stop_text_encoder_training": -1, "cache_latents": False}, ["unet"]),
    (DB, {"learning_rate": 0.0, "learning_rate_te": 1e-3}, ["text_encoder"]),
    (FT, {}, ["unet"]),
    (FT, {"train_text_encoder": True, "cache_latents": False}, ["unet", "text_encoder"]),
]


@pytest.mark.parametrize("script, options, expected", MATRIX)
def test_what_is_meant_changes_and_nothing_else(workshop, script, options, expected):
    name = f"matrix-{script}-{'-'.join(options)}"
    folder = trained(of(workshop, script), name, max_train_steps=1, save_every_n_steps=None, **options)
    assert changed(folder / "toad") == expected
    state = load_file(folder / "toad-state" / "model.safetensors")
    assert {key.partition(".")[0] for key in state} == set(expected)
    saved = parts_of(folder / "toad")
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        assert torch.equal(saved[part][rest], tensor)
    rates = workshop.events(name)[1]["lr"]
    assert sorted(rates) == sorted({"unet": "unet", "text_encoder": "text_encoder1"}[part] for part in expected)


@pytest.mark.parametrize("full", [False, True])
def test_mixed_precision(workshop, full):
    folder = trained(workshop, f"bf16-{full}", mixed_precision="bf16", full_bf16=full, max_train_steps=1, save_every_n_steps=None)
    state = load_file(folder / "toad-state" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.bfloat16 if full else torch.float32}
    assert changed(folder / "toad") == ["unet", "text_encoder"]  # the VAE has 16 bits in memory, and all of them in the file


class ScalingAccelerator(Accelerator):
    """On the CPU what accelerate does on a GPU under fp16: scales the loss, and casts to float16 as it goes."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.scaler, self.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**10), True


def test_float16_weights_under_a_loss_scaler(workshop):
    """Their gradients come unscaled to clipping and to the optimizer."""
    options = {"save_every_n_steps": None, "max_grad_norm": 0.1}
    trained(workshop, "fp32", **options)
    half = {"mixed_precision": "fp16", "full_fp16": True, "constants": {"library.train.runtime.Accelerator": ScalingAccelerator}}
    folder = trained(workshop, "fp16", **half, **options)
    assert (folder / "toad-state" / "scaler.pt").is_file()
    state = load_file(folder / "toad-state" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float16}
    for key in ("loss", "grad_norm"):
        found, expected = ([event[key] for event in workshop.events(name) if event["event"] == "step"] for name in ("fp16", "fp32"))
        assert found == pytest.approx(expected, rel=0.02) and len(found) == 2
    assert changed(folder / "toad") == ["unet", "text_encoder"]


BF16 = {"mixed_precision": "bf16", "full_bf16": True}
FUSED = {"fused_backward_pass": True, "optimizer_type": "AdaFactor", "optimizer_args": ["relative_step=False"]}
WATCHED = {"validation_split": 0.4, "save_best": True, "sample_every_n_steps": 2, "ema": True, "ema_samples": True}
WHILE_SAVING = Strike("library.checkpoint.files.replace", 12, "before")
IN_A_STEP = Strike("library.train.runtime.Runtime.backward", 3, "after")
LONG, SHORT = {"max_train_steps": 6, "save_every_n_steps": 2}, {"max_train_steps": 3, "save_every_n_steps": 2}
OF_TEXT = {"train_text_encoder": True, "learning_rate_te": 1e-4, "gradient_checkpointing": True}
RESUMED = {
    "text-encoder-stops": (DB, {**LONG, **WATCHED, "stop_text_encoder_training": 3, "reg_data_dir": "reg", "prior_loss_weight": 0.5}, WHILE_SAVING),
    "fused": (FT, {**SHORT, **OF_TEXT, "fused_optimizer_groups": 4, "ema": True, "max_grad_norm": 0.1}, IN_A_STEP),
    "sdxl-fused-bf16": (XL, {**SHORT, **BF16, **FUSED, "block_lr": ",".join(["0"] + ["1e-3"] * 22)}, IN_A_STEP),
    "sdxl": (XL, {**SHORT, "train_text_encoder": True, "learning_rate_te1": 0, "fused_optimizer_groups": 3}, IN_A_STEP),
}


@pytest.mark.parametrize("name", RESUMED)
def test_killed_and_resumed_to_the_bit(workshop, name):
    script, options, strike = RESUMED[name]
    options = {**options, "save_last_n_steps": 1, "lr_scheduler": "cosine"}
    if "sample_every_n_steps" in options:
        options["sample_prompts"] = str(workshop.folder / "prompts.txt")
    if "reg_data_dir" in options:
        options["reg_data_dir"] = str(workshop.folder / "reg")
    here = of(workshop, script)
    unbroken = parts_of(trained(here, name, **options) / "toad")
    outcome = here.train(f"{name}-killed", strikes=[strike], **options)
    assert outcome.code == -KILL, outcome.output
    outcome = here.go_on(f"{name}-killed", **options)
    assert outcome.code == 0, outcome.output
    assert "steps are done" in outcome.output
    folder = here.output(f"{name}-killed")
    resumed = parts_of(folder / "toad")
    for part, tensors in unbroken.items():
        assert all(torch.equal(resumed[part][key], tensor) for key, tensor in tensors.items())
    assert files_of(folder) == files_of(here.output(name))
    assert pictures_of(folder) == pictures_of(here.output(name))
    assert ("sample_prompts" in options) == bool(pictures_of(folder))


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "toad")))


def pictures_of(folder: Path) -> dict[str, bytes]:
    """The samples by step; names end in the time of day."""
    return {path.name[: len("toad_000002_00")]: Image.open(path).tobytes() for path in (folder / "sample").glob("toad_0*.png")}


def test_the_text_encoder_stays_as_it_was_at_its_last_step(workshop):
    folder = trained(workshop, "stops", stop_text_encoder_training=1)
    assert (folder / "toad" / "unet" / "diffusion_pytorch_model.safetensors").is_file()  # in the form of the source
    first, last = parts_of(folder / "toad-step00000001"), parts_of(folder / "toad")
    assert all(torch.equal(first["text_encoder"][key], tensor) for key, tensor in last["text_encoder"].items())
    assert changed(folder / "toad") == ["unet", "text_encoder"]
    assert not all(torch.equal(first["unet"][key], tensor) for key, tensor in last["unet"].items())


FORMS = [
    ("model.safetensors", {}, "toad.safetensors", None),
    ("model.ckpt", {}, "toad.ckpt", None),
    ("model.ckpt", {"use_safetensors": True}, "toad.safetensors", None),
    ("model.safetensors", {"save_model_as": "diffusers"}, "toad", ".bin"),
    ("whole", {"save_model_as": "safetensors", "save_precision": "fp16"}, "toad.safetensors", None),
]


@pytest.mark.parametrize("source, options, expected, weights", FORMS)
def test_a_model_is_saved_as_its_source_or_as_asked(workshop, source, options, expected, weights):
    path = workshop.folder / source
    if not path.exists():
        tiny_sd1_single_file(path)
    name = f"form-{source}-{'-'.join(map(str, options.values()))}"
    folder = trained(
        workshop, name, pretrained_model_name_or_path=str(path), max_train_steps=1, save_every_n_steps=None, save_state=None, **options
    )
    assert [path.name for path in folder.iterdir() if path.name.startswith("toad") and not path.name.endswith("-runs")] == [expected]
    if weights:
        assert (folder / expected / "unet" / f"diffusion_pytorch_model{weights}").is_file()
    assert "save_precision" in options or changed(folder / expected, short=False) == ["unet", "text_encoder"]
    if expected.endswith(".safetensors"):
        with safe_open(folder / expected, framework="pt") as file:
            metadata = file.metadata()
        assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
        assert metadata["modelspec.title"] == "toad"
        assert not [key for key in metadata if key.startswith("ss_")]
    dtypes = {tensor.dtype for tensor in load_file(folder / expected).values()} if "save_precision" in options else {torch.float16}
    assert dtypes == {torch.float16}


def test_the_other_vae_is_saved_and_what_a_file_holds_besides_stays(workshop):
    source = tiny_sd1_single_file(workshop.folder / "with-more.safetensors")
    more = {"model_ema.decay": torch.tensor(0.9999)}
    save_file(load_file(source) | more, source)
    vae = tiny_sd1_single_file(workshop.folder / "other.ckpt", seed=9)
    options = {"pretrained_model_name_or_path": str(source), "vae": str(vae), "max_train_steps": 1, "save_every_n_steps": None}
    folder = trained(workshop, "other-vae", save_state=None, **options)
    saved, expected = parts_of(folder / "toad.safetensors")["vae"], tiny_sd1_parts(9).vae.state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in expected.items())
    written = load_file(folder / "toad.safetensors")
    assert written.keys() == load_file(source).keys()
    assert torch.equal(written["model_ema.decay"], more["model_ema.decay"])


def test_captions_can_be_cached_where_the_text_encoder_is_not_trained(workshop):
    here, options = of(workshop, FT), {"max_train_steps": 2, "save_every_n_steps": None, "save_state": None}
    plain = parts_of(trained(here, "not-cached", **options) / "toad")
    for frozen in ({}, {"train_text_encoder": True, "learning_rate_te": 0.0}):
        name = f"cached-{len(frozen)}"
        outcome = here.train(name, cache_text_encoder_outputs=True, **options, **frozen)
        assert outcome.code == 0, outcome.output
        assert "text encoder outputs: 0 captions from the cache, 5 encoded" in outcome.output
        cached = parts_of(workshop.output(name) / "toad")
        assert all(torch.equal(plain[part][key], tensor) for part, tensors in cached.items() for key, tensor in tensors.items())


def test_a_folder_tells_how_it_was_trained(workshop):
    source = tiny_sd2_folder(workshop.folder / "sd2", prediction_type="v_prediction")
    options = {"v_parameterization": True, "zero_terminal_snr": True, "max_train_steps": 1, "save_every_n_steps": None}
    folder = trained(workshop, "zero-snr", pretrained_model_name_or_path=str(source), save_state=None, **options)
    config = json.loads((folder / "toad" / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    assert config.items() >= told.items()


def losses(workshop: Workshop, name: str, **options: object) -> list[float]:
    trained(workshop, name, max_train_steps=4, save_every_n_steps=None, save_state=None, learning_rate=1e-9, **options)
    return [event["loss"] for event in workshop.events(name) if event["event"] == "step"]


def test_regularisation_pictures_weigh_less(workshop):
    """With a rate of as good as 0 the losses of steps compare, even those of the two scripts."""
    here = replace(workshop, options={**workshop.options, "reg_data_dir": str(workshop.folder / "reg")})
    full = losses(here, "prior-1")
    for script in (DB, FT):
        half = losses(replace(here, script=script), f"prior-0.5-{script}", prior_loss_weight=0.5)
        assert {round(less / more, 3) for less, more in zip(half, full, strict=True)} == {1.0, 0.5}


def test_what_is_transparent_is_not_learned(workshop):
    folder = workshop.folder / "masked" / "1_toad"
    folder.mkdir(parents=True)
    for number in range(4):
        with Image.open(workshop.folder / "data" / "1_toad" / f"{number}.png") as picture:
            masked = picture.convert("RGBA")
        masked.putalpha(Image.new("L", masked.size, 0))
        masked.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a toad", encoding="utf-8")
    here = replace(workshop, options={**workshop.options, "train_data_dir": str(folder.parent)})
    assert min(losses(here, "masked-off")) > 0.1
    for script in (DB, FT):
        assert losses(replace(here, script=script), f"masked-on-{script}", alpha_mask=True) == [0.0] * 4


ERRORS = [
    (DB, {"train_text_encoder": True}, "this is an option of fine_tune.py and sdxl_train.py, not of train_db.py; delete it"),
    (FT, {"network_dim": 4}, "this is an option of train_network.py and sdxl_train_network.py, not of fine_tune.py"),
    (FT, {"stop_text_encoder_training": 5}, "the text encoder is not trained in any case"),
    (FT, {"learning_rate_te": 1e-5}, "learning_rate_te: the text encoder is not trained; remove this"),
    (DB, {"fp8_base": True, "mixed_precision": "bf16"}, "fp8_base: a model that is trained itself needs more than 8 bits"),
    (DB, {"learning_rate_te2": 1e-5}, "learning_rate_te2: this model has one text encoder"),
    (DB, {"block_lr": "1,2"}, "block_lr holds 2 values; only SDXL models take them"),
    (DB, {"learning_rate": 0, "stop_text_encoder_training": -1}, "there is nothing to train"),
    (DB, {"save_model_as": "pt"}, '"pt" is not one of ckpt, safetensors, diffusers, diffusers_safetensors'),
    ("sdxl_train.py", {}, "this is a model of the family sd_v1, sdxl_train.py takes sdxl: use fine_tune.py"),
]


@pytest.mark.parametrize("script, options, message", ERRORS)
def test_mistakes_are_told_before_a_weight_is_read(workshop, script, options, message):
    outcome = replace(workshop, script=script).train("mistake", **options)
    assert outcome.code == 2
    assert message in outcome.output
    assert "steps: " not in outcome.output
