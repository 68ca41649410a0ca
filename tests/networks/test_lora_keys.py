"""The keys and shapes of LoRA files are those that every other program expects."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from networks import lora

TABLE = json.loads(Path(__file__).with_name("data").joinpath("sd1_adapters.json").read_text(encoding="utf-8"))


def table_shapes(*sections: str) -> dict[str, list[int]]:
    shapes = {}
    for section in sections:
        for down, up, names in TABLE[section]:
            for name in names:
                shapes |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": []}
    return shapes


def network_shapes(parts, text_encoder=None, **network_args):
    with torch.device("meta"):
        network = lora.create_network(1.0, 4, 1, parts.vae, text_encoder or parts.text_encoders[0], parts.unet, **network_args)
    for adapter in network.loras:
        network.add_module(adapter.target.name, adapter)
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def test_linear_and_1x1_layers(sd15):
    shapes = network_shapes(sd15)
    assert shapes == table_shapes("plain")
    assert len(shapes) == 3 * (72 + 192)


def test_with_convolutions(sd15):
    shapes = network_shapes(sd15, conv_dim="8")
    assert shapes == table_shapes("plain", "convolutions")
    assert len(shapes) == 3 * (72 + 278)


def test_conv_dim_is_the_rank_of_3x3_convolutions_only(sd15):
    table = table_shapes("plain", "convolutions")
    different = [key for key, shape in network_shapes(sd15, conv_dim="2").items() if shape != table[key]]
    downs = [key for key in different if key.endswith("lora_down.weight")]
    assert len(downs) == 50
    assert not any("time_emb_proj" in key or "conv_shortcut" in key for key in downs)


def test_several_text_encoders_are_numbered(parts):
    encoder = parts.text_encoders[0]
    names = {key.split("_text_model")[0] for key in network_shapes(parts, [encoder, encoder]) if "_text_model" in key}
    assert names == {"lora_te1", "lora_te2"}
    assert any(key.startswith("lora_te_text_model") for key in network_shapes(parts, [encoder]))


def test_a_network_from_weights_leaves_later_networks_as_they_are(parts):
    """The list of adapted classes must not grow."""
    before = network_shapes(parts)
    tensors = {"lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": torch.zeros(3, 8, 3, 3)}
    network, _ = lora.create_network_from_weights(
        1.0, "x.safetensors", parts.vae, parts.text_encoders[0], parts.unet, tensors, for_inference=True
    )
    assert [(adapter.target.name, adapter.rank, float(adapter.alpha)) for adapter in network.loras] == [
        ("lora_unet_down_blocks_0_resnets_0_conv1", 3, 3.0)
    ]
    assert network_shapes(parts) == before


def test_alpha_is_a_float(parts):
    network = lora.create_network(1.0, 4, 1, parts.vae, parts.text_encoders[0], parts.unet)
    assert {adapter.alpha.dtype for adapter in network.loras} == {torch.float32}
    assert {adapter.scale for adapter in network.loras} == {0.25}


@pytest.mark.parametrize("alpha", [0, None])
def test_no_alpha_means_a_scale_of_one(parts, alpha):
    network = lora.create_network(1.0, 4, alpha, parts.vae, parts.text_encoders[0], parts.unet)
    assert {(adapter.scale, float(adapter.alpha)) for adapter in network.loras} == {(1.0, 4.0)}
