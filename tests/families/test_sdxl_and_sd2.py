"""Stable Diffusion 2.x and XL: loading from every form, and what the text encoders and the U-Net get, against plain references."""
from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from library.config.options.model import ModelOptions
from library.errors import UserError
from library.families.caption_weights import weighted_fragments
from library.families.detect import identify
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.families.tokenizers import load_tokenizer
from library.types import Batch, TextSettings
from tests import tiny_models

BOS, EOS = 49406, 49407
LONG = ", ".join(f"tag number {number} of a frog" for number in range(60))
CAPTIONS = ["", "a photo of sls frog", "(green:1.4) frog, [dull] (((pond", " ".join(["frog"] * 75), " ".join(["frog"] * 100), LONG]
MODELS = {
    "sd2": (tiny_models.tiny_sd2_parts, tiny_models.tiny_sd2_folder, tiny_models.tiny_sd2_single_file),
    "sdxl": (tiny_models.tiny_sdxl_parts, tiny_models.tiny_sdxl_folder, tiny_models.tiny_sdxl_single_file),
}


def options(path, **others):
    return ModelOptions(pretrained_model_name_or_path=str(path), **others)


def modules(parts):
    return [parts.unet, *parts.text_encoders, parts.vae]


# --- loading ---


@pytest.mark.parametrize("name", MODELS)
def test_every_form_gives_the_same_modules(name, tmp_path):
    make, folder, single = MODELS[name]
    expected = make(1)
    for path in (folder(tmp_path / "folder", 1), single(tmp_path / "a.safetensors", 1), single(tmp_path / "a.ckpt", 1)):
        family = identify(options(path))
        parts = family.load(options(path), torch.float32, "cpu")
        for module, wanted in zip(modules(parts), modules(expected), strict=True):
            state, wanted_state = module.state_dict(), wanted.state_dict()
            assert list(state) == list(wanted_state)
            assert all(torch.equal(state[key], wanted_state[key]) for key in wanted_state)
            assert not any(parameter.requires_grad for parameter in module.parameters())
        text = [family.encode_text(each, CAPTIONS[1:3], TextSettings()) for each in (parts, expected)]
        assert torch.equal(text[0].hidden_states, text[1].hidden_states)
        assert [tokenizer.pad_token_id for tokenizer in parts.tokenizers] == ([0] if name == "sd2" else [EOS, 0])


def test_what_the_families_say_of_themselves(tmp_path):
    path = tiny_models.tiny_sd2_single_file(tmp_path / "v2.safetensors")
    base, v = identify(options(path)), identify(options(path, v_parameterization=True, v2=True))
    assert (base.name, base.base_model_version, base.modelspec_architecture) == ("sd_v2", "sd_v2", "stable-diffusion-v2-512")
    assert (v.objective, v.base_model_version, v.modelspec_architecture) == ("v", "sd_v2_v", "stable-diffusion-v2-768-v")
    assert (base.default_resolution, v.default_resolution) == (512, 768)
    assert [note.split(": ")[1] for note in base.notes] == ["taken to be the noise; a 768-v model needs v_parameterization"]
    assert v.notes == ()
    assert v.load(options(path), torch.float32, "cpu").unet.config.sample_size == 96
    xl = identify(options(tiny_models.tiny_sdxl_single_file(tmp_path / "xl.safetensors")))
    assert (xl.name, xl.base_model_version, xl.modelspec_architecture) == ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base")
    assert (xl.latent_scale, xl.bucket_step, xl.default_resolution) == (0.13025, 32, 1024)
    assert xl.adapter_prefixes == ("lora_unet", "lora_te1", "lora_te2")
    assert StableDiffusion(objective="v").base_model_version == "sd_v1_v"


def refused(path, **others):
    with pytest.raises(UserError) as caught:
        identify(options(path, **others))
    return str(caught.value)


def test_options_that_contradict_the_checkpoint(tmp_path):
    noise = tiny_models.tiny_sd2_folder(tmp_path / "noise")
    v = tiny_models.tiny_sd2_folder(tmp_path / "v", prediction_type="v_prediction")
    xl = tiny_models.tiny_sdxl_single_file(tmp_path / "xl.safetensors")
    assert "add v_parameterization = true" in refused(v)
    assert identify(options(v, v_parameterization=True)).objective == "v"
    said = refused(noise, v_parameterization=True)
    assert "scheduler_config.json: v_parameterization = true" in said
    assert "delete v_parameterization" in said
    assert "this is Stable Diffusion XL: delete v2" in refused(xl, v2=True)
    assert "delete clip_skip" in refused(xl, clip_skip=2)
    assert "has 2 layers" in refused(noise, clip_skip=3)
    assert identify(options(noise, clip_skip=2)).notes == ("clip_skip: SD 2.x models leave out the last layer anyway",)


@pytest.mark.parametrize(
    "metadata", [{"modelspec.prediction_type": "v"}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "a tensor v_pred"]
)
def test_single_files_that_say_what_they_predict(tmp_path, metadata):
    from safetensors.torch import load_file, save_file

    path = tiny_models.tiny_sd2_single_file(tmp_path / "model.safetensors")
    state = load_file(path)
    if metadata == "a tensor v_pred":
        save_file(state | {"v_pred": torch.zeros(0)}, path)
    else:
        save_file(state, path, metadata)
    assert "add v_parameterization = true" in refused(path)
    assert identify(options(path, v_parameterization=True)).notes == ()


def test_a_single_file_that_predicted_noise_may_learn_v(tmp_path):
    family, path = StableDiffusionXL(), tmp_path / "model.safetensors"
    family.save(tiny_models.tiny_sdxl_parts(), path, "safetensors", None, {"modelspec.prediction_type": "epsilon"})
    assert identify(options(path, v_parameterization=True)).objective == "v"


def test_the_exclamation_mark_and_the_padding_of_sdxl(tmp_path):
    """The vocabulary that ships reads `!` as a word; a folder's own tokenizer decides for itself."""
    single = options(tiny_models.tiny_sdxl_single_file(tmp_path / "model.safetensors"))
    second = identify(single).load(single, torch.float32, "cpu").tokenizers[1]
    assert second("frog!").input_ids == [BOS, 11438, 256, EOS]
    cache = options(single.pretrained_model_name_or_path, tokenizer_cache_dir=str(tmp_path / "cache"))
    identify(cache).load(cache, torch.float32, "cpu")
    names = ["laion_CLIP-ViT-bigG-14-laion2B-39B-b160k", "openai_clip-vit-large-patch14"]
    assert sorted(folder.name for folder in (tmp_path / "cache").iterdir()) == names


# --- text ---


@cache
def tokenizer_padded_with(padding):
    return load_tokenizer(pad_token="!") if padding == 0 else load_tokenizer()


@pytest.fixture(scope="module")
def sd2():
    """Only to be read."""
    return tiny_models.tiny_sd2_parts()


@pytest.fixture(scope="module")
def sdxl():
    """Only to be read."""
    return tiny_models.tiny_sdxl_parts()


def windows_of(caption, length, padding, weighted):
    """Token ids of each window, and the weights of the states, in plain loops."""
    tokenizer = tokenizer_padded_with(padding)
    fragments = weighted_fragments(caption) if weighted else [(caption, 1.0)]
    content, weights = [], []
    for text, weight in fragments:
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        content += ids
        weights += [weight] * len(ids)
    content, weights = content[:length], weights[:length]
    sequence = [*content, EOS] + [padding] * (length - len(content))
    windows = []
    for start in range(0, length, 75):
        window = sequence[:-1][start : start + 75]
        end = sequence[-1]
        if padding != EOS and length > 75:
            if window[-1] not in (EOS, padding):
                end = EOS
            if window[0] == padding:
                window[0] = EOS
        windows.append([BOS, *window, end])
    return windows, torch.tensor([1.0, *weights] + [1.0] * (length + 1 - len(weights)))[:, None]


def joined(states):
    return torch.cat([states[0][:1], *(window[1:76] for window in states), states[-1][76:]])


LENGTHS = pytest.mark.parametrize("length", [None, 150, 225])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


@WEIGHTED
@LENGTHS
@pytest.mark.parametrize("clip_skip", [None, 1, 2])
def test_text_of_sd2(sd2, clip_skip, length, weighted):
    settings = TextSettings(clip_skip, length, weighted)
    found = StableDiffusion(name="sd_v2").encode_text(sd2, CAPTIONS, settings).hidden_states
    model = sd2.text_encoders[0].text_model
    for row, caption in zip(found, CAPTIONS, strict=True):
        windows, weights = windows_of(caption, length or 75, 0, weighted)
        states = []
        for window in windows:
            hidden = model(torch.tensor([window]), output_hidden_states=True).hidden_states
            states.append(model.final_layer_norm(hidden[-(clip_skip or 1)])[0])
        torch.testing.assert_close(row, joined(states) * weights, atol=1e-5, rtol=1e-5)


@WEIGHTED
@LENGTHS
def test_text_of_sdxl(sdxl, length, weighted):
    found = StableDiffusionXL().encode_text(sdxl, CAPTIONS, TextSettings(None, length, weighted))
    assert found.hidden_states.shape == (len(CAPTIONS), (length or 75) + 2, 32 + 48)
    first, second = sdxl.text_encoders
    for row, pooled, caption in zip(found.hidden_states, found.pooled, CAPTIONS, strict=True):
        windows, weights = windows_of(caption, length or 75, EOS, weighted)
        states = [first.text_model(torch.tensor([window]), output_hidden_states=True).hidden_states[-2][0] for window in windows]
        windows, _ = windows_of(caption, length or 75, 0, weighted)
        outputs = [second.text_model(torch.tensor([window]), output_hidden_states=True) for window in windows]
        more = [output.hidden_states[-2][0] for output in outputs]
        expected = torch.cat([joined(states), joined(more)], dim=1) * weights
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)
        end = outputs[0].last_hidden_state[0, windows[0].index(EOS)]
        torch.testing.assert_close(pooled, second.text_projection.weight @ end, atol=1e-5, rtol=1e-5)


def test_states_without_padding_are_those_with_it(sd2, sdxl):
    for parts, family in ((sd2, StableDiffusion(name="sd_v2")), (sdxl, StableDiffusionXL())):
        padded = family.encode_text(parts, ["frog", LONG], TextSettings(max_token_length=225))
        short = family.encode_text(parts, ["frog", "a green frog"], TextSettings(max_token_length=225, no_padding=True))
        assert short.hidden_states.shape[1] == 5
        torch.testing.assert_close(short.hidden_states[0], padded.hidden_states[0, :5], atol=1e-5, rtol=1e-5)
        if short.pooled is not None:
            torch.testing.assert_close(short.pooled[0], padded.pooled[0], atol=1e-5, rtol=1e-5)


def test_gradients_reach_all_layers_of_sdxl_that_are_read():
    parts = tiny_models.tiny_sdxl_parts()
    for encoder in parts.text_encoders:
        encoder.requires_grad_(True)
    found = StableDiffusionXL().encode_text(parts, ["a frog", LONG], TextSettings(max_token_length=150))
    (found.hidden_states.square().sum() + found.pooled.square().sum()).backward()
    untouched = [key for key, parameter in parts.text_encoders[0].named_parameters() if parameter.grad is None]
    assert untouched and all(key.startswith(("text_model.encoder.layers.1.", "text_model.final_layer_norm")) for key in untouched)
    assert all(parameter.grad.abs().sum() > 0 for parameter in parts.text_encoders[1].parameters())


# --- the U-Net ---


def batch_of(originals, crops, targets):
    fields = dict.fromkeys(Batch.__dataclass_fields__)
    sizes = {"original_sizes_hw": originals, "crop_top_lefts": crops, "target_sizes_hw": targets}
    return Batch(**{**fields, **{key: torch.tensor(value) for key, value in sizes.items()}})


def sinusoid(number):
    """[256]: cosines, then sines, of the number times 128 frequencies from 1 down to about 1/10000."""
    angles = [number * math.exp(-math.log(10000) * index / 128) for index in range(128)]
    return torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])


@pytest.mark.parametrize("with_batch", [True, False])
def test_sdxl_is_told_the_sizes_in_their_order(with_batch):
    parts, family = tiny_models.tiny_sdxl_parts(), StableDiffusionXL()
    text = family.encode_text(parts, ["a frog", "a pond"], TextSettings())
    batch = batch_of([[768, 1024], [333, 222]], [[0, 64], [-5, 0]], [[64, 96], [64, 96]]) if with_batch else None
    numbers = [[768, 1024, 0, 64, 64, 96], [333, 222, -5, 0, 64, 96]] if with_batch else [[64, 96, 0, 0, 64, 96]] * 2
    seen = []
    parts.unet.add_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        prediction = family.predict(parts, torch.zeros(2, 4, 8, 12), torch.tensor([3, 999]), text, batch)
    assert prediction.shape == (2, 4, 8, 12)
    expected = [torch.cat([pooled, *map(sinusoid, row)]) for pooled, row in zip(text.pooled, numbers, strict=True)]
    torch.testing.assert_close(seen[0], torch.stack(expected), atol=1e-4, rtol=1e-5)


def test_predictions_of_sdxl_equal_a_plain_call(sdxl):
    parts, family = sdxl, StableDiffusionXL()
    text = family.encode_text(parts, ["a frog"], TextSettings())
    latents, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    given = {"text_embeds": text.pooled, "time_ids": torch.tensor([[512.0, 640.0, 3.0, 4.0, 64.0, 64.0]])}
    plain = parts.unet(latents, timesteps, text.hidden_states, added_cond_kwargs=given, return_dict=False)[0]
    found = family.predict(parts, latents, timesteps, text, batch_of([[512, 640]], [[3, 4]], [[64, 64]]))
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    other = family.predict(parts, latents, timesteps, text, batch_of([[512, 640]], [[4, 3]], [[64, 64]]))
    assert (other - found).abs().max() > 1e-5


def test_latents_of_sdxl_have_their_own_scale(sdxl):
    parts, family = sdxl, StableDiffusionXL()
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(family.decode_latents(parts, latents * 0.13025), parts.vae.decode(latents * 0.13025 / 0.13025).sample)
