"""Every key of --network_args that networks.lora knows changes something: which layers, their ranks, rates, or what they add."""
from __future__ import annotations

import pytest
import torch

from networks import lora
from networks.lora_settings import KNOWN_KEYS

ONES = ",".join(["1"] * 25)
NUMBERS = ",".join(str(1 + block % 3) for block in range(25))
# Key: what it is set to, and what it needs beside it.
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "attn_only": ("true", {}),
    "dropout": ("0.5", {}),
    "rank_dropout": ("0.5", {}),
    "module_dropout": ("0.5", {}),
    "conv_dim": ("2", {}),
    "conv_alpha": ("7", {"conv_dim": "2"}),
    "block_dims": (NUMBERS, {}),
    "block_alphas": (NUMBERS, {"block_dims": ONES}),
    "conv_block_dims": (NUMBERS, {"block_dims": ONES}),
    "conv_block_alphas": (NUMBERS, {"block_dims": ONES, "conv_dim": "2"}),
    "down_lr_weight": ("linear", {}),
    "mid_lr_weight": ("0.5", {}),
    "up_lr_weight": ("0.5,", {}),
    "block_lr_zero_threshold": ("0.5", {"down_lr_weight": "linear"}),
    "loraplus_lr_ratio": ("4", {}),
    "loraplus_unet_lr_ratio": ("4", {}),
    "loraplus_text_encoder_lr_ratio": ("4", {}),
}


def observed(parts, arguments):
    """Layers with ranks and alphas, learning rates, and what each adapter adds while it is trained."""
    torch.manual_seed(0)
    network = lora.create_network(1.0, 4, 2.0, parts.vae, parts.text_encoders[0], parts.unet, **arguments)
    network.train()
    groups, names = network.prepare_optimizer_params(1e-5, 1e-4, 1e-3)
    added = {}
    for adapter in network.loras:
        torch.nn.init.ones_(adapter.lora_up.weight)
        torch.nn.init.ones_(adapter.lora_down.weight)
        layer = adapter.target.module
        shape = (2, layer.in_features) if isinstance(layer, torch.nn.Linear) else (2, layer.in_channels, 4, 4)
        output = torch.zeros(())
        added[adapter.target.name] = float(adapter._add_to_output(layer, (torch.ones(shape),), output).detach().sum())
    ranks = {adapter.target.name: (adapter.rank, float(adapter.alpha)) for adapter in network.loras}
    return ranks, [(name, group["lr"], len(group["params"])) for name, group in zip(names, groups, strict=True)], added


@pytest.mark.parametrize("key", KNOWN_KEYS)
def test_a_key_changes_something(parts, key):
    value, beside = ROWS[key]
    assert observed(parts, beside) == observed(parts, beside)  # what is seen does not change by itself
    assert observed(parts, beside | {key: value}) != observed(parts, beside)


def test_attentions_only(parts):
    ranks, _, _ = observed(parts, {"attn_only": "true"})
    everything, _, _ = observed(parts, {"attn_only": "false"})
    unet = {name for name in ranks if name.startswith("lora_unet")}
    assert {name.rpartition("_attn")[2] for name in unet} == {
        f"{number}_to_{part}" for number in (1, 2) for part in ("q", "k", "v", "out_0")
    }
    assert {name.rpartition("self_attn_")[2] for name in ranks.keys() - unet} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    left_out = everything.keys() - ranks.keys()
    assert left_out and all(any(part in name for part in ("_proj_", "_ff_", "_mlp_")) for name in left_out)


def test_attentions_only_is_a_file_that_tells_its_layers(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    network = lora.create_network(1.0, 4, 2.0, parts.vae, parts.text_encoders[0], parts.unet, attn_only="true")
    network.apply_to(parts.text_encoders[0], parts.unet)
    network.save_weights(str(file), None, {})
    again, _ = lora.create_network_from_weights(1.0, file, parts.vae, parts.text_encoders[0], parts.unet)
    assert [adapter.target.name for adapter in again.loras] == [adapter.target.name for adapter in network.loras]
