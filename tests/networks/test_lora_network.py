"""A whole network: parameter groups, files, merging, norms."""
from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from library.errors import UserError
from networks import lora
from networks.lora_weights import read_weights

CONV_WEIGHT = "lora_unet_down_blocks_0_resnets_0_conv1"
LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_1_mlp_fc1"


def make(parts, dim=4, alpha=2.0, applied=True, **arguments):
    network = lora.create_network(1.0, dim, alpha, parts.vae, parts.text_encoders[0], parts.unet, **arguments)
    if applied:
        network.apply_to(parts.text_encoders[0], parts.unet, True, True)
    return network


def randomise(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return network


def shapes_of(tensors):
    return {key: value.shape for key, value in tensors.items()}


def named_lrs(result):
    groups, names = result
    return {name: group["lr"] for name, group in zip(names, groups, strict=True)}


def test_one_group_for_each_side(parts):
    network = make(parts)
    groups, names = network.prepare_optimizer_params(1e-5, 1e-4, 1e-3)
    assert names == ["textencoder", "unet"]
    assert [group["lr"] for group in groups] == [1e-5, 1e-4]
    assert [len(group["params"]) for group in groups] == [2 * len(network.text_encoder_loras), 2 * len(network.unet_loras)]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in network.get_trainable_params()}


def test_no_rate_of_its_own_means_the_default_and_zero_means_no_group(parts):
    network = make(parts)
    assert named_lrs(network.prepare_optimizer_params(None, None, 1e-3)) == {"textencoder": 1e-3, "unet": 1e-3}
    assert named_lrs(network.prepare_optimizer_params(0, 1e-4, 1e-3)) == {"unet": 1e-4}
    assert named_lrs(network.prepare_optimizer_params(1e-5, 0.0, 1e-3)) == {"textencoder": 1e-5}


def test_lora_plus_gives_the_up_projections_a_group_of_their_own(parts):
    network = make(parts, loraplus_lr_ratio="16", loraplus_unet_lr_ratio="4")
    groups, names = network.prepare_optimizer_params(1e-5, 1e-4, 1e-3)
    assert named_lrs((groups, names)) == pytest.approx(
        {"textencoder": 1e-5, "textencoder plus": 1.6e-4, "unet": 1e-4, "unet plus": 4e-4}
    )
    ups = {id(adapter.lora_up.weight) for adapter in network.unet_loras}
    assert {id(parameter) for parameter in groups[3]["params"]} == ups
    assert not ups & {id(parameter) for parameter in groups[2]["params"]}


def test_block_learning_rates(parts):
    """The tiny U-Net has attentions in blocks 1, 4, 7 down, 12, and 16, 17, 19, 20, 22, 23 up."""
    network = make(parts, down_lr_weight="1,0.5,1,1,0", mid_lr_weight="2", up_lr_weight="zeros+0.25", loraplus_unet_lr_ratio="2")
    rates = named_lrs(network.prepare_optimizer_params(1e-5, 1e-4, 1e-3))
    expected = {"textencoder": 1e-5}
    for block, weight in {1: 0.5, 7: 1.0, 12: 2.0, **dict.fromkeys((16, 17, 19, 20, 22, 23), 0.25)}.items():
        expected |= {f"unet_block{block}": 1e-4 * weight, f"unet_block{block} plus": 2e-4 * weight}
    assert rates == pytest.approx(expected)
    assert not any("down_blocks_1_" in adapter.target.name for adapter in network.loras)


def test_block_ranks_apply_to_the_unet_only(parts):
    dims = ",".join(str(block % 3) for block in range(25))
    network = make(parts, dim=7, block_dims=dims, conv_block_dims=dims, block_alphas=",".join(["5"] * 25))
    assert {adapter.rank for adapter in network.text_encoder_loras} == {7}
    assert all(adapter.rank == adapter.target.block % 3 for adapter in network.unet_loras)
    assert {adapter.target.block for adapter in network.unet_loras} == {1, 4, 7, 10, 13, 16, 17, 19, 20, 22, 23, 14}
    assert {float(adapter.alpha) for adapter in network.unet_loras if not adapter.target.is_spatial} == {5.0}


def test_several_text_encoders_share_a_rate_or_have_one_each(parts):
    encoders = parts.text_encoders * 2
    network = lora.create_network(1.0, 4, 1, parts.vae, encoders, parts.unet)
    network.apply_to(encoders, parts.unet, True, False)
    prepare = network.prepare_optimizer_params_with_multiple_te_lrs
    assert named_lrs(prepare(None, None, 1e-3)) == {"textencoder": 1e-3}
    assert named_lrs(prepare([1e-5, 2e-5], None, 1e-3)) == {"textencoder 1": 1e-5, "textencoder 2": 2e-5}


@pytest.mark.parametrize(("text_encoder", "unet"), [(True, False), (False, True)])
def test_only_one_side(parts, text_encoder, unet):
    network = make(parts, applied=False)
    network.apply_to(parts.text_encoders[0], parts.unet, text_encoder, unet)
    prefixes = {key.split("_")[1] for key in network.state_dict()}
    assert prefixes == ({"te"} if text_encoder else {"unet"})
    assert all(lora_hooks(adapter.target.module) for adapter in network.loras)
    other = parts.unet if text_encoder else parts.text_encoders[0]
    assert not any(lora_hooks(module) for module in other.modules())


def lora_hooks(module):
    return [hook for hook in module._forward_hooks.values() if hook.__name__ == "_add_to_output"]


def test_saved_weights_come_back(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    network = randomise(make(parts, conv_dim="2"))
    network.save_weights(str(file), None, {"ss_steps": "3", "modelspec.title": "x"})
    again = make(parts, conv_dim="2", applied=False)
    again.apply_to(parts.text_encoders[0], parts.unet)
    report = again.load_weights(str(file))
    assert (report.missing, report.unexpected) == ((), ())
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_the_file_tells_its_hashes(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    metadata = {"ss_steps": "3", "modelspec.title": "x"}
    randomise(make(parts)).save_weights(str(file), torch.float16, metadata)
    blob = file.read_bytes()
    with safe_open(file, "pt") as opened:
        written = opened.metadata()
    header_length = int.from_bytes(blob[:8], "little")
    assert written["sshs_model_hash"] == hashlib.sha256(blob[8 + header_length :]).hexdigest()
    assert len(written["sshs_legacy_hash"]) == 8
    assert metadata.items() <= written.items()
    assert metadata == {"ss_steps": "3", "modelspec.title": "x"}
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_pickles(parts, tmp_path, suffix):
    file = tmp_path / f"lora{suffix}"
    network = randomise(make(parts))
    network.save_weights(str(file), None, {})
    loaded = torch.load(file, weights_only=True)
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    assert not make(parts).load_weights(str(file)).missing


def test_missing_and_unexpected_keys_are_reported(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    randomise(make(parts, conv_dim="2")).save_weights(str(file), None, {})
    tensors = {key: value for key, value in load_file(file).items() if "lora_te" not in key}
    save_file(tensors, file)
    report = make(parts).load_weights(file)
    assert report.missing and all(key.startswith("lora_te") for key in report.missing)
    assert any(key.startswith(CONV_WEIGHT) for key in report.unexpected)
    assert "not in the file" in str(report) and "ignored" in str(report)


def test_a_missing_alpha_is_the_rank_and_the_alpha_of_the_file_wins(parts, tmp_path, caplog):
    file = tmp_path / "lora.safetensors"
    tensors = randomise(make(parts, alpha=2.0)).state_dict()
    del tensors[f"{LINEAR}.alpha"]
    tensors[f"{TEXT}.alpha"] = torch.tensor(1)
    save_file(tensors, file)
    network = make(parts, alpha=2.0)
    report = network.load_weights(file)
    scales = {adapter.target.name: adapter.scale for adapter in network.loras}
    assert (scales.pop(LINEAR), scales.pop(TEXT)) == (1.0, 0.25)
    assert set(scales.values()) == {0.5}
    assert not report.missing
    assert "alpha" in caplog.text


def test_wrong_shapes_and_foreign_files_are_the_users_mistake(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    make(parts, dim=8).save_weights(file, None, {})
    with pytest.raises(UserError, match=r"lora\.safetensors: .*\[8, .*network_dim"):
        make(parts, dim=4).load_weights(file)
    save_file({"model.diffusion_model.x": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="lora_unet_"):
        make(parts).load_weights(file)
    with pytest.raises(UserError, match="no adapter"):
        lora.create_network_from_weights(1, file, parts.vae, parts.text_encoders[0], parts.unet)


def test_a_file_for_a_wider_model_is_the_users_mistake(parts):
    tensors = {f"{TEXT}.lora_down.weight": torch.zeros(4, 1024), f"{TEXT}.lora_up.weight": torch.zeros(64, 4)}
    with pytest.raises(UserError, match=r"sd2\.safetensors: .*\[4, 1024\].*\[4, 32\]"):
        lora.create_network_from_weights(1, "sd2.safetensors", parts.vae, parts.text_encoders[0], parts.unet, tensors)


@pytest.mark.parametrize("name", ["torn.safetensors", "torn.pt", "empty.ckpt"])
def test_unreadable_files_are_the_users_mistake(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"" if name.startswith("empty") else b"\x80\x02ccollections\nOrdered")
    with pytest.raises(UserError, match=name):
        read_weights(file)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "absent.safetensors")


def test_shapes_from_weights_and_everything_else_from_the_arguments(parts, tmp_path, caplog):
    """Dropouts and LoRA+ hold with dim_from_weights too."""
    file = tmp_path / "lora.safetensors"
    make(parts, dim=3, alpha=6.0, conv_dim="2").save_weights(file, None, {})
    network, weights = lora.create_network_from_weights(
        1,
        str(file),
        parts.vae,
        parts.text_encoders[0],
        parts.unet,
        neuron_dropout=0.1,
        rank_dropout="0.2",
        module_dropout="0.3",
        loraplus_lr_ratio="4",
        conv_dim="9",
        down_lr_weight="linear",
    )
    network.apply_to(parts.text_encoders[0], parts.unet, True, True)
    assert shapes_of(network.state_dict()) == shapes_of(weights)
    assert {float(adapter.alpha) for adapter in network.loras if not adapter.target.is_spatial} == {6.0}
    dropouts = network.loras[0].dropouts
    assert (dropouts.neuron, dropouts.rank, dropouts.module) == (0.1, 0.2, 0.3)
    _, names = network.prepare_optimizer_params(None, None, 1.0)
    assert {"unet_block4", "unet_block4 plus", "textencoder plus"} <= set(names)
    assert "conv_dim: not used" in caplog.text


def test_merging_gives_the_same_model_as_applying(parts, tmp_path):
    file = tmp_path / "lora.safetensors"
    text_encoder, unet = parts.text_encoders[0], parts.unet
    network = randomise(make(parts, conv_dim="2", applied=False))
    network.apply_to(text_encoder, unet)
    randomise(network)
    network.save_weights(file, None, {})
    ids, latents, timesteps = torch.arange(77)[None] * 9, torch.randn(1, 4, 8, 8), torch.tensor([7])

    def output():
        with torch.no_grad():
            return unet(latents, timesteps, text_encoder(ids)).sample

    network.set_multiplier(0.0)
    plain = output()
    network.set_multiplier(0.5)
    applied = output()
    network.set_multiplier(0.0)
    merged, weights = lora.create_network_from_weights(0.5, file, parts.vae, text_encoder, unet, for_inference=True)
    assert merged.is_mergeable()
    merged.merge_to(text_encoder, unet, weights, torch.float32, "cpu")
    torch.testing.assert_close(output(), applied, rtol=1e-4, atol=1e-4)
    assert (applied - plain).abs().max() > 1e-2


def test_max_norm_scales_what_is_too_long(parts):
    network = randomise(make(parts, conv_dim="2"))
    before = {adapter.target.name: adapter.weight_delta().detach().clone() for adapter in network.loras}
    norms = torch.stack([delta.norm() for delta in before.values()])
    limit = float(norms.median())
    count, mean, largest = network.apply_max_norm_regularization(limit, "cpu")
    assert count == int((norms > limit).sum())
    assert mean == pytest.approx(float(norms.clamp(max=limit).mean()), rel=1e-4)
    assert largest == pytest.approx(limit, rel=1e-4)
    for adapter in network.loras:
        delta = before[adapter.target.name]
        torch.testing.assert_close(adapter.weight_delta(), delta * min(1.0, limit / float(delta.norm())), rtol=1e-4, atol=1e-6)


def test_max_norm_leaves_an_untrained_network_alone(parts):
    network = make(parts)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.apply_max_norm_regularization(1.0, "cpu") == (0, 0.0, 0.0)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
