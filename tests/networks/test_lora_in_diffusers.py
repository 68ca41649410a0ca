"""A saved LoRA does in diffusers what it did in training."""
from __future__ import annotations

import warnings

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.types import Conditioning, Parts, TextSettings
from networks import lora
from tests.tiny_models import tiny_sd1_parts, tiny_sd2_parts, tiny_sdxl_parts

MODELS = {
    "sd1": (tiny_sd1_parts, StableDiffusion()),
    "sd2": (tiny_sd2_parts, StableDiffusion(name="sd_v2")),
    "sdxl": (tiny_sdxl_parts, StableDiffusionXL()),
}


def outputs(family, parts):
    """The conditioning of a text, and what the U-Net predicts with it."""
    with torch.no_grad():
        conditioning = family.encode_text(parts, ["a frog in a pond"], TextSettings())
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        return conditioning, family.predict(parts, latents, torch.tensor([10]), conditioning, None)


def pipeline(parts):
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    first = parts.text_encoders[0].text_model
    if len(parts.text_encoders) == 1:
        return StableDiffusionPipeline(
            parts.vae, first, parts.tokenizers[0], parts.unet, scheduler, None, None, requires_safety_checker=False
        )
    second = CLIPTextModelWithProjection(parts.text_encoders[1].text_model.config)
    second.load_state_dict(parts.text_encoders[1].state_dict())
    return StableDiffusionXLPipeline(parts.vae, first, second, *parts.tokenizers, parts.unet, scheduler)


def with_encoders_of(pipe, parts):
    """The parts, with text encoders that are those of the pipeline."""
    parts.text_encoders[0].text_model = pipe.text_encoder
    if len(parts.text_encoders) == 2:
        parts.text_encoders[1].text_model = pipe.text_encoder_2.text_model
        parts.text_encoders[1].text_projection = pipe.text_encoder_2.text_projection
    return Parts(pipe.unet, parts.text_encoders, parts.tokenizers, parts.vae)


def encoders(parts):
    return parts.text_encoders if len(parts.text_encoders) > 1 else parts.text_encoders[0]


def trained(parts, path, **arguments):
    """A network with random weights at work in the parts, also saved."""
    network = lora.create_network(1.0, 4, 2.0, parts.vae, encoders(parts), parts.unet, **arguments)
    network.apply_to(encoders(parts), parts.unet, True, True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    network.save_weights(str(path), None, {"ss_network_module": "networks.lora"})
    return network


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Conditioning):
            assert_close((one.hidden_states, one.pooled), (other.hidden_states, other.pooled))
        elif one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"conv_dim": "2", "conv_alpha": "3"}], ids=["plain", "convolutions"])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_output(name, tmp_path, arguments):
    make, family = MODELS[name]
    parts = make()
    plain = outputs(family, parts)
    network = trained(parts, tmp_path / "lora.safetensors", **arguments)
    changed = outputs(family, parts)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = make()
        pipe = pipeline(fresh)
        pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    assert_close(outputs(family, with_encoders_of(pipe, fresh)), changed)
    assert (changed[0].hidden_states - plain[0].hidden_states).abs().max() > 1e-2
    assert (changed[1] - plain[1]).abs().max() > 1e-2
    models = [pipe.unet, pipe.text_encoder, *([pipe.text_encoder_2] if name == "sdxl" else [])]
    assert sum("lora_A" in key for model in models for key, _ in model.named_parameters()) == len(network.loras)


def test_a_file_with_the_names_that_diffusers_has_for_sdxl(tmp_path):
    parts, family = tiny_sdxl_parts(), StableDiffusionXL()
    network = trained(parts, tmp_path / "lora.safetensors")
    expected = outputs(family, parts)
    weights = load_file(tmp_path / "lora.safetensors")
    for adapter in network.unet_loras:
        other = "lora_unet_" + adapter.target.path.replace(".", "_")
        for key in ("lora_down.weight", "lora_up.weight", "alpha"):
            weights[f"{other}.{key}"] = weights.pop(f"{adapter.target.name}.{key}")
    save_file(weights, tmp_path / "renamed.safetensors")
    assert_loads(tiny_sdxl_parts, family, tmp_path / "renamed.safetensors", expected)


def test_a_file_that_holds_matrices_as_convolutions(tmp_path):
    """As sd-scripts writes them for SD 2.x."""
    parts, family = tiny_sd2_parts(), StableDiffusion(name="sd_v2")
    network = trained(parts, tmp_path / "lora.safetensors")
    expected = outputs(family, parts)
    weights = load_file(tmp_path / "lora.safetensors")
    for name in [adapter.target.name for adapter in network.unet_loras if adapter.target.path.endswith(("proj_in", "proj_out"))]:
        for key in ("lora_down.weight", "lora_up.weight"):
            weights[f"{name}.{key}"] = weights[f"{name}.{key}"][..., None, None].contiguous()
    save_file(weights, tmp_path / "convolutions.safetensors")
    assert_loads(tiny_sd2_parts, family, tmp_path / "convolutions.safetensors", expected)


def assert_loads(make, family, file, expected):
    """Merged, and loaded into a network of its own, the file does what is expected."""
    merged, loaded = make(), make()
    network, weights = lora.create_network_from_weights(1.0, file, merged.vae, encoders(merged), merged.unet, for_inference=True)
    network.merge_to(encoders(merged), merged.unet, weights)
    assert_close(outputs(family, merged), expected)
    network = lora.create_network(1.0, 4, 2.0, loaded.vae, encoders(loaded), loaded.unet)
    network.apply_to(encoders(loaded), loaded.unet, True, True)
    assert str(network.load_weights(file)) == "every tensor loaded"
    assert_close(outputs(family, loaded), expected)
