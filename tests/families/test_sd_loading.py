"""Loading Stable Diffusion 1.x from every form, and what the family does with the modules."""
from __future__ import annotations

import json
import logging

import pytest
import safetensors
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from library.config.options.model import ModelOptions
from library.errors import UserError
from library.families import keys_sd
from library.families.detect import identify
from library.families.loading import load_module
from library.families.sd import StableDiffusion
from library.types import TextSettings
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_parts, tiny_sd1_single_file

PARTS = ("unet", "vae", "text_encoder")


def load(path, dtype=torch.float32, **others):
    options = ModelOptions(pretrained_model_name_or_path=str(path), **others)
    return identify(options).load(options, dtype, "cpu")


def module(parts, name):
    return parts.text_encoders[0] if name == "text_encoder" else getattr(parts, name)


def assert_equal(parts, expected, dtype=torch.float32, names=PARTS):
    for name in names:
        state, wanted = module(parts, name).state_dict(), module(expected, name).state_dict()
        assert list(state) == list(wanted)
        assert all(torch.equal(state[key], wanted[key].to(dtype)) for key in wanted)


def unmapped_only(monkeypatch):
    """Files of tensors can no longer be mapped into memory."""
    opened = safetensors.safe_open

    def refuse(path, framework, device="cpu"):
        assert framework == "numpy", "a file of tensors was mapped"  # which is how headers are read
        return opened(path, framework, device)

    monkeypatch.setattr(safetensors, "safe_open", refuse)


@pytest.fixture
def folder(tmp_path):
    return tiny_sd1_folder(tmp_path / "diffusers", seed=1)


@pytest.fixture(params=["diffusers", "model.safetensors", "model.ckpt"])
def model(request, tmp_path):
    write = tiny_sd1_single_file if "." in request.param else tiny_sd1_folder
    return write(tmp_path / request.param, seed=1)


def test_every_form_gives_the_same_modules(model):
    expected = tiny_sd1_parts(1)
    parts = load(model)
    assert_equal(parts, expected)
    family = StableDiffusion()
    latents, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([3, 999])
    outputs = []
    for each in (parts, expected):
        text = family.encode_text(each, ["a frog", "a pond"], TextSettings())
        posterior = family.encode_images(each, torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64))
        outputs.append([text.hidden_states, posterior.mean, posterior.std, family.predict(each, latents, timesteps, text)])
    for found, wanted in zip(*outputs, strict=True):
        assert torch.equal(found, wanted)


def test_no_weight_is_drawn_before_the_stored_ones_are_there(folder, monkeypatch):
    """Which takes seconds where there are many."""
    expected = tiny_sd1_parts(1)

    def refuse(*_arguments, **_keywords):
        raise AssertionError("a weight was initialised")

    for name in ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, refuse)
    monkeypatch.setattr(PreTrainedModel, "init_weights", refuse)
    assert_equal(load(folder), expected)


def test_modules_are_frozen_and_in_eval_mode(folder):
    parts = load(folder)
    for name in PARTS:
        assert not any(parameter.requires_grad for parameter in module(parts, name).parameters())
        assert not any(part.training for part in module(parts, name).modules())
        assert not any(tensor.is_meta for tensor in (*module(parts, name).parameters(), *module(parts, name).buffers()))


def test_precisions(folder):
    assert_equal(load(folder, torch.bfloat16), tiny_sd1_parts(1), torch.bfloat16)
    parts = load(folder, torch.bfloat16, no_half_vae=True)
    assert_equal(parts, tiny_sd1_parts(1), torch.float32, ["vae"])
    assert_equal(parts, tiny_sd1_parts(1), torch.bfloat16, ["unet", "text_encoder"])


def test_the_vae_keeps_its_precision_under_autocast(folder):
    parts, family = load(folder, no_half_vae=True), StableDiffusion()
    images = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    plain = family.encode_images(parts, images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = family.encode_images(parts, images)
        decoded = family.decode_latents(parts, mixed.mean.bfloat16())
    assert torch.equal(plain.mean, mixed.mean)
    assert torch.equal(plain.std, mixed.std)
    assert decoded.dtype == torch.float32


def test_posterior_is_unscaled_and_decoding_takes_scaled_latents(folder):
    parts, family = load(folder), StableDiffusion(latent_scale=0.25)
    images = torch.randn(2, 3, 64, 64)
    distribution = parts.vae.encode(images).latent_dist
    posterior = family.encode_images(parts, images)
    assert torch.equal(posterior.mean, distribution.mean)
    assert torch.equal(posterior.std, distribution.std)
    assert torch.equal(family.decode_latents(parts, posterior.mean * 0.25), parts.vae.decode(posterior.mean).sample)


@pytest.mark.parametrize("variant", [".fp16.safetensors", ".bin", ".fp16.bin", "sharded"])
def test_variants_of_files_in_folders(folder, variant):
    for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / part / f"{stem}.safetensors"
        state = load_file(path)
        path.unlink()
        if variant.endswith(".bin"):
            stem = stem.replace("model", "pytorch_model") if stem == "model" else stem
            torch.save(state, folder / part / f"{stem}{variant}")
        elif variant == "sharded":
            names = sorted(state)
            pieces = {f"{stem}-00001-of-00002.safetensors": names[::2], f"{stem}-00002-of-00002.safetensors": names[1::2]}
            for file, inside in pieces.items():
                save_file({name: state[name] for name in inside}, folder / part / file)
            index = {"weight_map": {name: file for file, inside in pieces.items() for name in inside}}
            (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        else:
            save_file(state, folder / part / f"{stem}{variant}")
    assert_equal(load(folder), tiny_sd1_parts(1))


def test_names_of_older_libraries(folder):
    path = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in load_file(path).items():
        for new_name, old_name in old.items():
            name = name.replace(f"attentions.0.{new_name}.", f"attentions.0.{old_name}.")
        state[name] = tensor
    assert any("proj_attn" in name for name in state)
    save_file(state, path)
    assert_equal(load(folder), tiny_sd1_parts(1))


def vae_forms(tmp_path):
    state = tiny_sd1_parts(2).vae.state_dict()
    whole = load_file(tiny_sd1_single_file(tmp_path / "whole.safetensors", seed=2))
    ldm = {name: tensor for name, tensor in whole.items() if name.startswith(keys_sd.VAE_PREFIX)}
    save_file(ldm, tmp_path / "prefixed.safetensors")
    bare = {name.removeprefix(keys_sd.VAE_PREFIX): tensor for name, tensor in ldm.items()}
    torch.save({"state_dict": bare}, tmp_path / "bare.pt")
    save_file(state, tmp_path / "diffusers.safetensors")
    whole = tiny_sd1_folder(tmp_path / "whole", seed=2)
    return [tmp_path / name for name in ("prefixed.safetensors", "bare.pt", "diffusers.safetensors", "whole.safetensors")] + [
        whole,
        whole / "vae",
    ]


def test_another_vae_from_every_form(folder, tmp_path):
    expected = tiny_sd1_parts(2).vae.state_dict()
    for path in vae_forms(tmp_path):
        family = identify(ModelOptions(pretrained_model_name_or_path=str(folder), vae=str(path)))
        vae = load_module(family.source.parts["vae"], AutoencoderKL.from_config, torch.float32, "cpu")
        assert all(torch.equal(tensor, expected[name]) for name, tensor in vae.state_dict().items())


def test_weights_that_do_not_fit_the_configuration(folder, caplog):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    save_file(state | {"extra.weight": torch.zeros(1)}, path)
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "extra.weight" in caplog.text
    save_file({name: tensor for name, tensor in state.items() if name != "conv_in.bias"}, path)
    with pytest.raises(UserError, match=r"1 tensors are missing, the first is conv_in\.bias"):
        load(folder)
    save_file(state | {"conv_in.bias": torch.zeros(5)}, path)
    with pytest.raises(UserError, match=r"conv_in\.bias has the shape \[5\], its configuration says \[8\]"):
        load(folder)


def test_tokenizers(folder, tmp_path):
    single = tiny_sd1_single_file(tmp_path / "model.safetensors")
    for path in (folder, single):
        assert load(path).tokenizers[0]("sls frog").input_ids == [49406, 33651, 11438, 49407]
    cache = tmp_path / "tokenizers"
    load(single, tokenizer_cache_dir=str(cache))
    assert (cache / "openai_clip-vit-large-patch14" / "merges.txt").is_file()
    assert load(single, tokenizer_cache_dir=str(cache)).tokenizers[0]("frog").input_ids == [49406, 11438, 49407]


def test_reading_weights_leaves_the_global_generator_alone(folder):
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_can_be_read_without_mapping_them(model, monkeypatch):
    expected = load(model)
    unmapped_only(monkeypatch)
    assert_equal(load(model, disable_mmap_load_safetensors=True), expected)
    if model.suffix != ".ckpt":
        with pytest.raises(AssertionError, match="was mapped"):
            load(model)
