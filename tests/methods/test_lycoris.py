"""LyCORIS, the network module that most people use beside ours, trains, saves and loads."""
from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from library.config.options import NetworkOptions, OptimizerOptions
from library.methods.adapter import AdapterMethod
from tests.tiny_models import tiny_sd1_parts

pytest.importorskip("lycoris.kohya", reason="lycoris-lora is not installed or cannot be imported here")


def attached(parts, **options):
    method = AdapterMethod(
        NetworkOptions(network_module="lycoris.kohya", network_dim=4, network_alpha=2.0, **options),
        OptimizerOptions(learning_rate=1e-2),
        gradient_checkpointing=True,
        seed=1,
    )
    method.attach(parts, "sd_v1")
    method.train()
    return method


def prediction(parts):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    hidden = parts.text_encoders[0](torch.arange(77)[None] * 5)
    return parts.unet(latents, torch.tensor([3]), hidden).sample


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_a_step_changes_the_model_and_the_file_brings_it_back(tmp_path, algorithm):
    arguments = (f"algo={algorithm}", "conv_dim=2", "rank_dropout=0.1")
    parts = tiny_sd1_parts()
    with torch.no_grad():
        plain = prediction(parts)
    method = attached(parts, network_args=arguments)
    assert [group["name"] for group in method.parameter_groups()] == ["textencoder", "unet"]
    optimizer = torch.optim.AdamW(method.parameter_groups())
    for _ in range(2):
        prediction(parts).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    method.eval()
    with torch.no_grad():
        trained = prediction(parts)
    assert (trained - plain).abs().max() > 1e-3

    file = tmp_path / "lycoris.safetensors"
    method.write(file, None, {"ss_network_module": "lycoris.kohya"})
    with safe_open(file, "pt") as opened:
        assert "lora_unet_time_embedding_linear_1.alpha" in set(opened.keys())
        assert opened.metadata()["ss_network_module"] == "lycoris.kohya"
        assert "sshs_model_hash" in opened.metadata()

    again = tiny_sd1_parts()
    loaded = attached(again, network_args=arguments, network_weights=str(file))
    loaded.eval()
    with torch.no_grad():
        torch.testing.assert_close(prediction(again), trained, rtol=1e-4, atol=1e-5)
