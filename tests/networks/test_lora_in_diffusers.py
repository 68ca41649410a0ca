"""A saved LoRA does in diffusers what it did in training."""
from __future__ import annotations

import warnings

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from networks import lora
from tests.tiny_models import tiny_sd1_parts


def outputs(text_encode, unet):
    """Hidden states of a text, and what the U-Net predicts with them."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    ids = torch.randint(0, 49406, (1, 77), generator=generator)
    with torch.no_grad():
        hidden = text_encode(ids)
        return hidden, unet(latents, torch.tensor([10]), hidden).sample


def pipeline():
    parts = tiny_sd1_parts()
    return StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoders[0].text_model,
        tokenizer=parts.tokenizers[0],
        unet=parts.unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("arguments", [{}, {"conv_dim": "2", "conv_alpha": "3"}], ids=["plain", "convolutions"])
def test_the_same_output(parts, tmp_path, arguments):
    text_encoder, unet = parts.text_encoders[0], parts.unet
    plain_hidden, plain = outputs(text_encoder, unet)
    network = lora.create_network(1.0, 4, 2.0, parts.vae, text_encoder, unet, **arguments)
    network.apply_to(text_encoder, unet, True, True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    trained_hidden, trained = outputs(text_encoder, unet)
    network.save_weights(str(tmp_path / "lora.safetensors"), None, {"ss_network_module": "networks.lora"})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = pipeline()
        pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    hidden, loaded = outputs(lambda ids: pipe.text_encoder(ids).last_hidden_state, pipe.unet)

    torch.testing.assert_close(hidden, trained_hidden, rtol=0, atol=1e-4)
    torch.testing.assert_close(loaded, trained, rtol=0, atol=1e-4)
    assert (trained_hidden - plain_hidden).abs().max() > 1e-2
    assert (trained - plain).abs().max() > 1e-2
    names = [name for model in (pipe.unet, pipe.text_encoder) for name, _ in model.named_parameters()]
    assert sum("lora_A" in name for name in names) == len(network.loras)
