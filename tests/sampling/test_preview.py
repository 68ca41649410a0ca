"""Sample pictures: equal to diffusers' own pipeline, a function of the seed, no trace left in the model or the generators."""
from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from library.families.sd import StableDiffusion
from library.sampling.preview import PreviewOptions, draw_images, draw_samples, save_samples, to_picture
from library.sampling.prompts import SamplePrompt
from library.sampling.schedulers import SAMPLERS, make_scheduler
from library.types import TextSettings
from tests.sampling.test_schedulers import INSTALLED
from tests.tiny_models import tiny_sd1_parts

PROMPT = SamplePrompt("a photo of sls frog", "blurry", 64, 96, 7, 4, 5.0, "ddim")
OPTIONS = PreviewOptions(seed=1)


@pytest.fixture(scope="module")
def parts():
    return tiny_sd1_parts(short=True)


@pytest.fixture(scope="module")
def pipeline(parts):
    return StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoders[0].text_model,
        tokenizer=parts.tokenizers[0],
        unet=parts.unet,
        scheduler=make_scheduler("ddim", 4, "epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def draw(parts, prompt, options=OPTIONS, family=None):
    [picture] = draw_samples(family or StableDiffusion(), parts, [prompt], options)
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("scale", [5.0, 1.0])
@pytest.mark.parametrize("name", [name for name in INSTALLED if not name.startswith("k_")])
def test_equal_to_diffusers_pipeline(parts, pipeline, name, scale):
    pipeline.scheduler = make_scheduler(name, 4, "epsilon")
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPT.prompt, negative_prompt=PROMPT.negative_prompt, width=64, height=96, num_inference_steps=4, guidance_scale=scale,
        generator=torch.Generator().manual_seed(7), output_type="np",
    ).images[0]  # fmt: skip
    drawn = draw(parts, replace(PROMPT, sample_sampler=name, scale=scale))
    assert drawn.shape == (96, 64, 3)
    assert np.abs(drawn - expected * 255).max() <= 1


@pytest.mark.parametrize("scale", [5.0, 1.0])
@pytest.mark.parametrize("name", ["dpmsolver++", "euler_a", "ddpm"])  # the latter two draw noise in each step
def test_several_at_once_are_those_drawn_one_by_one(parts, name, scale):
    like = replace(PROMPT, sample_sampler=name, scale=scale)
    prompts = [like, like, replace(like, prompt="a heart", negative_prompt="")]
    with torch.no_grad():
        together = draw_images(StableDiffusion(), parts, prompts, [7, 8, 8], OPTIONS)
    pictures = [np.asarray(to_picture(image)).astype(int) for image in together]
    for seed, prompt, picture in zip((7, 8, 8), prompts, pictures, strict=True):
        assert np.abs(picture - draw(parts, replace(prompt, seed=seed))).max() <= 1
    assert np.abs(pictures[0] - pictures[1]).max() > 3  # by the seed
    assert np.abs(pictures[1] - pictures[2]).max() > 0  # by the text, of which a model with random weights makes little


def test_what_is_drawn_at_once_differs_in_its_texts_only(parts):
    with pytest.raises(ValueError, match="unpack"):
        draw_images(StableDiffusion(), parts, [PROMPT, replace(PROMPT, scale=2.0)], [7, 8], OPTIONS)


def test_v_objective_and_zero_terminal_snr_change_the_picture(parts):
    family = StableDiffusion(objective="v")
    pictures = [
        draw(parts, PROMPT),
        draw(parts, PROMPT, family=family),
        draw(parts, PROMPT, replace(OPTIONS, zero_terminal_snr=True), family),
    ]
    assert all(np.abs(one - other).max() > 3 for one, other in zip(pictures, pictures[1:], strict=False))


def test_picture_is_a_function_of_its_seed(parts):
    torch.manual_seed(1)
    first = draw(parts, PROMPT)
    torch.manual_seed(2)
    assert np.array_equal(first, draw(parts, PROMPT))
    assert np.abs(first - draw(parts, replace(PROMPT, seed=8))).max() > 3
    assert np.abs(first - draw(parts, replace(PROMPT, seed=-8))).max() > 3


def test_without_a_seed_the_runs_seed_and_the_place_decide(parts):
    prompt = replace(PROMPT, seed=None, sample_sampler="euler_a")
    one, two = draw_samples(StableDiffusion(), parts, [prompt, prompt], OPTIONS)
    again, _ = draw_samples(StableDiffusion(), parts, [prompt, prompt], OPTIONS)
    other, _ = draw_samples(StableDiffusion(), parts, [prompt, prompt], PreviewOptions(seed=2))
    assert one.tobytes() == again.tobytes()
    assert len({one.tobytes(), two.tobytes(), other.tobytes()}) == 3


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name in INSTALLED])
def test_global_generators_are_left_alone(parts, name):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    draw(parts, replace(PROMPT, sample_sampler=name))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_no_dropout_no_gradients_and_the_modes_come_back(parts):
    plain = draw(parts, PROMPT)
    parts.unet.train()
    parts.unet.mid_block.eval()
    dropouts = [module for module in parts.unet.modules() if isinstance(module, torch.nn.Dropout)]
    for dropout in dropouts:
        dropout.p = 0.5
    parts.unet.requires_grad_(True)
    modes = [module.training for module in parts.unet.modules()]
    try:
        assert np.array_equal(plain, draw(parts, PROMPT))
        assert [module.training for module in parts.unet.modules()] == modes
        assert torch.is_grad_enabled()
    finally:
        for dropout in dropouts:
            dropout.p = 0.0
        parts.unet.eval().requires_grad_(False)


class CountingFamily(StableDiffusion):
    """Notes the batch size of every call to the model."""

    def predict(self, parts, noisy_latents, timesteps, conditioning, batch=None):
        sizes.append((len(noisy_latents), len(timesteps), len(conditioning.hidden_states)))
        return super().predict(parts, noisy_latents, timesteps, conditioning, batch)


sizes: list[tuple[int, int, int]] = []


@pytest.mark.parametrize(("scale", "expected"), [(7.5, 2), (1.0, 1), (0.0, 1)])
def test_no_second_pass_without_guidance(parts, scale, expected):
    sizes.clear()
    draw(parts, replace(PROMPT, scale=scale), family=CountingFamily())
    assert sizes == [(expected,) * 3] * 4


def test_text_options_reach_the_text_encoder(parts):
    prompt = replace(PROMPT, prompt="(frog:1.5) " + "pond " * 90)
    plain = draw(parts, prompt)
    for change in (TextSettings(clip_skip=2), TextSettings(max_token_length=150), TextSettings(weighted=True)):
        assert not np.array_equal(plain, draw(parts, prompt, replace(OPTIONS, text=change))), change


def test_autocast_of_the_caller(parts):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draw(parts, PROMPT)
    assert 0 < np.abs(mixed - draw(parts, PROMPT)).max() < 40


class BreakingFamily(StableDiffusion):
    def encode_text(self, parts, captions, settings):
        if "break" in captions[-1]:
            raise RuntimeError("out of memory")
        return super().encode_text(parts, captions, settings)


def test_a_sample_that_fails_is_reported_and_the_others_are_drawn(parts, tmp_path):
    prompts = [replace(PROMPT, prompt=text) for text in ("one", "break", "three")]
    failures = []
    pictures = draw_samples(BreakingFamily(), parts, prompts, OPTIONS, lambda *failure: failures.append(failure))
    assert [picture is None for picture in pictures] == [False, True, False]
    assert failures[0][0].prompt == "break"
    assert str(failures[0][1]) == "out of memory"
    assert [path.name.split("_")[1] for path in save_samples(pictures, prompts, tmp_path, None, 5)] == ["00", "02"]
    with pytest.raises(RuntimeError, match="out of memory"):
        draw_samples(BreakingFamily(), parts, prompts, OPTIONS)


def test_pictures_of_nan_are_refused():
    with pytest.raises(ValueError, match="bf16"):
        to_picture(torch.full((3, 8, 8), float("nan")))


def test_pixel_values():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(3, 1, 5)
    assert np.asarray(to_picture(values))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_names_and_that_nothing_is_overwritten(tmp_path):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    prompts = [SamplePrompt("a"), SamplePrompt("b", seed=42)]
    paths = save_samples(pictures, prompts, tmp_path / "sample", "frog", 100)
    again = save_samples(pictures[::-1], prompts, tmp_path / "sample", "frog", 100)
    assert len({*paths, *again}) == 4
    assert [bool(path.match("frog_000100_0?_??????????????*.png")) for path in paths] == [True, True]
    assert paths[0].stem.count("_") == 3
    assert paths[1].stem.endswith("_42")
    assert [Image.open(path).getpixel((0, 0)) for path in paths] == [(255, 0, 0), (0, 128, 0)]
    [path] = save_samples(pictures[:1], prompts[:1], tmp_path, None, 0, epoch=0)
    assert path.name.startswith("e000000_00_")
