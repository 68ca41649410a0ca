"""The keys and shapes of LoRA files are those that every other program expects."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from networks import lora
from tests.full_models import full_parts

FOLDER = Path(__file__).with_name("data")
# How many layers of the text encoders, of the U-Net, and of the U-Net with convolutions.
COUNTS = {"sd1": (72, 192, 278), "sd2": (138, 192, 278), "sdxl": (72 + 192, 722, 788)}
FAMILY_NAMES = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl"}


def table_shapes(family: str, *sections: str) -> dict[str, list[int]]:
    table = json.loads((FOLDER / f"{family}_adapters.json").read_text(encoding="utf-8"))
    shapes = {}
    for section in sections:
        for down, up, names in table[section]:
            for name in names:
                own_down, own_up = (matrix(down), matrix(up)) if is_matrix_here(family, name) else (down, up)
                shapes |= {f"{name}.lora_down.weight": own_down, f"{name}.lora_up.weight": own_up, f"{name}.alpha": []}
    return shapes


def is_matrix_here(family: str, name: str) -> bool:
    """The table was made from U-Nets whose projections of SD 2.x are 1x1 convolutions; in the released models they are matrices,
    and diffusers loads no other shape."""
    return family == "sd2" and re.search(r"attentions_\d_proj_(in|out)$", name) is not None


def matrix(shape: list[int]) -> list[int]:
    assert shape[2:] == [1, 1]
    return shape[:2]


def network_shapes(parts, text_encoder=None, **network_args):
    encoders = text_encoder or (parts.text_encoders[0] if len(parts.text_encoders) == 1 else parts.text_encoders)
    with torch.device("meta"):
        network = lora.create_network(1.0, 4, 1, parts.vae, encoders, parts.unet, **network_args)
    for adapter in network.loras:
        network.add_module(adapter.target.name, adapter)
    return {key: list(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("family", COUNTS)
def test_linear_and_1x1_layers(family):
    shapes = network_shapes(full_parts(FAMILY_NAMES[family]))
    assert shapes == table_shapes(family, "plain")
    assert len(shapes) == 3 * sum(COUNTS[family][:2])


@pytest.mark.parametrize("family", COUNTS)
def test_with_convolutions(family):
    shapes = network_shapes(full_parts(FAMILY_NAMES[family]), conv_dim="8")
    assert shapes == table_shapes(family, "plain", "convolutions")
    assert len(shapes) == 3 * (COUNTS[family][0] + COUNTS[family][2])


def test_conv_dim_is_the_rank_of_3x3_convolutions_only(sd15):
    table = table_shapes("sd1", "plain", "convolutions")
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
