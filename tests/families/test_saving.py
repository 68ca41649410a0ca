"""Whole models, saved in every form: what comes back, what else a file keeps, and that other programs load it."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from library.config.options.model import ModelOptions
from library.diffusion.schedule import scaled_linear_schedule
from library.families.base import Layout
from library.families.detect import identify
from library.families.reading import CONFIG_KEY
from library.families.source import Trained
from library.sampling.preview import PreviewOptions, draw_samples
from library.sampling.prompts import SamplePrompt
from library.types import TextSettings
from tests import tiny_models

FOLDERS = {"sd1": tiny_models.tiny_sd1_folder, "sd2": tiny_models.tiny_sd2_folder, "sdxl": tiny_models.tiny_sdxl_folder}
SINGLE_FILES = {
    "sd1": tiny_models.tiny_sd1_single_file, "sd2": tiny_models.tiny_sd2_single_file, "sdxl": tiny_models.tiny_sdxl_single_file,
}  # fmt: skip
LAYOUTS: dict[Layout, str] = {"safetensors": "a.safetensors", "ckpt": "a.ckpt", "diffusers": "bin", "diffusers_safetensors": "safe"}


def loaded(path, dtype=torch.float32, **others):
    options = ModelOptions(pretrained_model_name_or_path=str(path), **others)
    family = identify(options)
    return family, family.load(options, dtype, "cpu")


def modules(parts):
    return [parts.unet, *parts.text_encoders, parts.vae]


def assert_same_tensors(parts, expected, dtype=torch.float32):
    for module, wanted in zip(modules(parts), modules(expected), strict=True):
        state, wanted_state = module.state_dict(), wanted.state_dict()
        assert list(state) == list(wanted_state)
        assert all(torch.equal(state[key], wanted_state[key].to(dtype)) for key in wanted_state)


def tensors_of(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)["state_dict"]


# From each form into each: a walk that takes every step once.
WALK: tuple[Layout, ...] = (
    "safetensors", "safetensors", "ckpt", "ckpt", "diffusers", "diffusers", "diffusers_safetensors", "diffusers_safetensors",
    "safetensors", "diffusers", "ckpt", "diffusers_safetensors", "diffusers", "safetensors", "diffusers_safetensors", "ckpt",
    "safetensors",
)  # fmt: skip


def test_the_walk_takes_every_step():
    assert set(zip(WALK, WALK[1:], strict=False)) == {(one, other) for one in LAYOUTS for other in LAYOUTS}


@pytest.mark.parametrize(("name", "walk"), [("sd1", WALK), ("sd2", WALK[6:12]), ("sdxl", WALK[6:12])])
def test_any_form_from_any_form(name, walk, tmp_path):
    """The family says in which form its model came, and saves it in any; what comes back is the same to the bit."""
    family, parts = loaded(FOLDERS[name](tmp_path / "first", seed=3))
    first = parts
    for number, layout in enumerate(walk):
        path = tmp_path / str(number) / LAYOUTS[layout]
        path.parent.mkdir()
        family.save(parts, path, layout, None, {})
        family, parts = loaded(path)
        assert family.source_layout == layout
        assert_same_tensors(parts, first)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_precision_is_that_which_was_asked_for(layout, tmp_path):
    family, parts = loaded(FOLDERS["sd2"](tmp_path / "source"))
    path = tmp_path / LAYOUTS[layout]
    family.save(parts, path, layout, torch.float16, {})
    assert_same_tensors(loaded(path, torch.float16)[1], parts, torch.float16)
    files = [path] if path.is_file() else [*path.rglob("*.safetensors"), *path.rglob("*.bin")]
    for file in files:
        state = torch.load(file, weights_only=True) if file.suffix == ".bin" else tensors_of(file)
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}


EXTRAS = {
    "model_ema.decay": torch.tensor(0.9999),
    "alphas_cumprod": torch.linspace(1, 0, 10, dtype=torch.float64),
    "cond_stage_model.something.else": torch.arange(77)[None],
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_not_ours_stays_in_the_file(name, suffix, tmp_path):
    plain = tensors_of(SINGLE_FILES[name](tmp_path / "plain.safetensors"))
    source = tmp_path / f"source{suffix}"
    unused = {key: tensor + 1 for key, tensor in plain.items() if ".resblocks.2." in key} if name == "sd2" else {}
    if suffix == ".ckpt":
        torch.save({"state_dict": plain | EXTRAS | unused, "epoch": 4, "global_step": 100}, source)
    else:
        save_file(plain | EXTRAS | unused, source)
    family, parts = loaded(source)
    for module in modules(parts):
        for parameter in module.parameters():
            parameter.data += 1
    family.save(parts, tmp_path / f"saved{suffix}", family.source_layout, torch.bfloat16, {}, Trained(epochs=2, steps=30))
    saved = tensors_of(tmp_path / f"saved{suffix}")
    assert saved.keys() == plain.keys() | EXTRAS.keys()
    for key, tensor in (EXTRAS | unused).items():
        assert saved[key].dtype == tensor.dtype
        assert torch.equal(saved[key], tensor)
    trained = plain.keys() - unused.keys() - {key for key in plain if key.endswith(("logit_scale", "model.text_projection"))}
    assert all(torch.equal(saved[key], (plain[key] + 1).bfloat16()) for key in trained)
    if suffix == ".ckpt":
        content = torch.load(tmp_path / "saved.ckpt", weights_only=True)
        assert {key: value for key, value in content.items() if key != "state_dict"} == {"epoch": 6, "global_step": 130}


def test_a_file_of_sd2_made_from_a_folder_has_the_layer_and_the_tensors_that_programs_expect(tmp_path):
    plain = tensors_of(SINGLE_FILES["sd2"](tmp_path / "plain.safetensors"))
    start = "cond_stage_model.model."
    layers = [{key.split(f"resblocks.{layer}.")[1]: tensor for key, tensor in plain.items() if f"resblocks.{layer}." in key} for layer in (1, 2)]
    assert layers[0].keys() == layers[1].keys()
    assert all(torch.equal(layers[0][key], layers[1][key]) for key in layers[0])
    assert (plain[f"{start}text_projection"].shape, plain[f"{start}logit_scale"].shape) == ((32, 32), ())


def test_the_original_may_be_gone(tmp_path):
    source = SINGLE_FILES["sdxl"](tmp_path / "source.safetensors")
    family, parts = loaded(source)
    source.unlink()
    family.save(parts, tmp_path / "saved.safetensors", "safetensors", None, {})
    assert_same_tensors(loaded(tmp_path / "saved.safetensors")[1], parts)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_other_vae_is_what_is_saved(layout, tmp_path):
    """From a bare file in Diffusers' names, into a model that came as one file."""
    other = tiny_models.tiny_sd1_parts(9).vae
    save_file(other.state_dict(), tmp_path / "vae.safetensors")
    family, parts = loaded(SINGLE_FILES["sd1"](tmp_path / "source.safetensors"), vae=str(tmp_path / "vae.safetensors"))
    family.save(parts, tmp_path / LAYOUTS[layout], layout, None, {})
    saved = loaded(tmp_path / LAYOUTS[layout])[1]
    assert_same_tensors(saved, parts)
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in saved.vae.state_dict().items())
    if layout == "safetensors":
        plain = tensors_of(tmp_path / "source.safetensors")
        assert {key: tensor.shape for key, tensor in tensors_of(tmp_path / LAYOUTS[layout]).items()} == {
            key: tensor.shape for key, tensor in plain.items()
        }


def test_text_encoders_under_an_old_name_keep_it(tmp_path):
    """Some files leave out `text_model.`; nothing must be there twice."""
    start = "cond_stage_model.transformer."
    plain = tensors_of(SINGLE_FILES["sd1"](tmp_path / "plain.safetensors"))
    save_file({key.replace(f"{start}text_model.", start): tensor for key, tensor in plain.items()}, tmp_path / "old.safetensors")
    family, parts = loaded(tmp_path / "old.safetensors")
    family.save(parts, tmp_path / "saved.safetensors", "safetensors", None, {})
    assert tensors_of(tmp_path / "saved.safetensors").keys() == tensors_of(tmp_path / "old.safetensors").keys()


@pytest.mark.parametrize("layout", ["safetensors", "ckpt"])
def test_what_a_single_file_cannot_tell_is_in_its_metadata(layout, tmp_path):
    family, parts = loaded(FOLDERS["sd1"](tmp_path / "folder"))
    vae = AutoencoderKL(**tiny_models.VAE_CONFIG | {"norm_num_groups": 2, "scaling_factor": 0.5}).eval()
    vae.save_pretrained(tmp_path / "folder" / "vae")
    family, parts = loaded(tmp_path / "folder")
    family.save(parts, tmp_path / LAYOUTS[layout], layout, None, {"modelspec.title": "frog"})
    again, parts_again = loaded(tmp_path / LAYOUTS[layout])
    assert again.latent_scale == 0.5
    images = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    assert torch.equal(again.encode_images(parts_again, images).mean, family.encode_images(parts, images).mean)
    if layout == "safetensors":
        with safe_open(tmp_path / LAYOUTS[layout], "pt") as file:
            told = file.metadata()
        assert json.loads(told.pop(CONFIG_KEY)) == {"vae": {"norm_num_groups": 2, "scaling_factor": 0.5}}
        assert told == {"modelspec.title": "frog"}


def test_the_tokenizers_and_the_scheduler_of_a_folder_go_along(tmp_path):
    source = FOLDERS["sdxl"](tmp_path / "source")
    (source / "tokenizer_2" / "added.txt").write_text("kept", encoding="utf-8")
    scheduler = json.loads((source / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    family, parts = loaded(source)
    family.save(parts, tmp_path / "saved", "diffusers_safetensors", None, {})
    assert (tmp_path / "saved" / "tokenizer_2" / "added.txt").read_text(encoding="utf-8") == "kept"
    assert json.loads((tmp_path / "saved" / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")) == scheduler


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("sd1", {"_class_name": "PNDMScheduler", "steps_offset": 1}, DDIMScheduler),  # this one does not know such schedules
        ("sd2", {"_class_name": "DPMSolverMultistepScheduler"}, DPMSolverMultistepScheduler),
        ("sdxl", None, EulerDiscreteScheduler),
    ],
)
def test_a_folder_tells_the_schedule_that_was_trained_on(name, own, expected, tmp_path):
    source = FOLDERS[name](tmp_path / "source")
    file = source / "scheduler" / "scheduler_config.json"
    if own is None:
        file.unlink()
    else:
        config = json.loads(file.read_text(encoding="utf-8")) | own | {"prediction_type": "v_prediction"}
        file.write_text(json.dumps(config), encoding="utf-8")
    family, parts = loaded(source, v_parameterization=True)
    family.save(parts, tmp_path / "saved", "diffusers", None, {}, Trained(zero_terminal_snr=True))
    scheduler = PIPELINES[name].from_pretrained(tmp_path / "saved", local_files_only=True).scheduler
    assert type(scheduler) is expected
    assert (scheduler.config.prediction_type, scheduler.config.rescale_betas_zero_snr) == ("v_prediction", True)
    ours = scaled_linear_schedule(zero_terminal_snr=True).alphas_cumprod
    assert torch.allclose(scheduler.alphas_cumprod.double(), ours.double(), atol=1e-6)
    if own is not None:
        assert scheduler.config.steps_offset == 1


# --- other programs ---

PROMPT = SamplePrompt("a photo of sls frog", "blurry", 64, 96, 7, 3, 5.0, "ddim")
PIPELINES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def picture_of(pipeline):
    config = dict(pipeline.scheduler.config) | {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    pipeline.scheduler = DDIMScheduler.from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPT.prompt, negative_prompt=PROMPT.negative_prompt, width=64, height=96, num_inference_steps=3, guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7), output_type="np",
    ).images[0]  # fmt: skip


def assert_same_picture(pipeline, family, parts):
    [picture] = draw_samples(family, parts, [PROMPT], PreviewOptions(seed=1))
    drawn = np.asarray(picture).astype(int)
    assert drawn.std() > 1
    assert np.abs(drawn - picture_of(pipeline) * 255).max() <= 1


@pytest.mark.parametrize(
    ("name", "layout", "v"),
    [
        ("sd1", "diffusers", False),
        ("sd2", "diffusers_safetensors", False),
        ("sd2", "diffusers", True),
        ("sdxl", "diffusers_safetensors", False),
        ("sdxl", "diffusers_safetensors", True),
    ],
)
def test_pipelines_load_our_folders_and_draw_the_same(name, layout, v, tmp_path):
    family, parts = loaded(SINGLE_FILES[name](tmp_path / "source.safetensors"), v_parameterization=v)
    family.save(parts, tmp_path / "saved", layout, None, {})
    pipeline = PIPELINES[name].from_pretrained(tmp_path / "saved", local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == ("v_prediction" if v else "epsilon")
    assert_same_picture(pipeline, family, parts)


@pytest.mark.parametrize("name", FOLDERS)
def test_pipelines_load_our_single_files_and_draw_the_same(name, tmp_path):
    folder = FOLDERS[name](tmp_path / "folder")
    family, parts = loaded(folder)
    family.save(parts, tmp_path / "saved.safetensors", "safetensors", None, {"modelspec.title": "frog"})
    pipeline = PIPELINES[name].from_single_file(str(tmp_path / "saved.safetensors"), config=str(folder), local_files_only=True)
    assert_same_picture(pipeline, family, parts)


def test_a_trained_text_encoder_is_read_from_our_file(tmp_path):
    family, parts = loaded(FOLDERS["sdxl"](tmp_path / "folder"))
    before = family.encode_text(parts, ["a frog"], TextSettings())
    for encoder in parts.text_encoders:
        for parameter in encoder.parameters():
            parameter.data *= 1.5
    family.save(parts, tmp_path / "saved.safetensors", "safetensors", None, {})
    again, parts_again = loaded(tmp_path / "saved.safetensors")
    after = again.encode_text(parts_again, ["a frog"], TextSettings())
    assert torch.equal(after.hidden_states, family.encode_text(parts, ["a frog"], TextSettings()).hidden_states)
    assert (after.pooled - before.pooled).abs().max() > 1e-3
