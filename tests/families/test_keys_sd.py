"""Names of tensors, LDM and Diffusers: both ways, on the full key set of SD 1.5 and on tiny weights."""
from __future__ import annotations

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel

from library.families import configs_sd, keys_sd
from tests.tiny_models import tiny_sd1_parts

SD15_UNET = {"cross_attention_dim": 768, "sample_size": 64}  # otherwise Diffusers' defaults are those of SD 1.x
SD15_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@pytest.fixture(scope="module")
def full_unet():
    with init_empty_weights():
        return UNet2DConditionModel(**SD15_UNET)


@pytest.fixture(scope="module")
def full_vae():
    with init_empty_weights():
        return AutoencoderKL(**SD15_VAE)


def _there_and_back(state, ldm, table, prefix):
    back = {}
    for name in ldm:
        assert name.startswith(prefix)
        back[keys_sd.translated(name.removeprefix(prefix), table)] = ldm[name]
    assert set(back) == set(state)
    return back


def test_full_unet_both_ways(full_unet):
    state = full_unet.state_dict()
    ldm = keys_sd.unet_to_ldm(state)
    assert len(ldm) == len(state) == 686
    names = {name.removeprefix(keys_sd.UNET_PREFIX) for name in ldm}
    layout = keys_sd.ldm_unet_layout(names)
    assert layout == keys_sd.UNetLayout(4, 2, (True, True, True, False))
    back = _there_and_back(state, ldm, keys_sd.unet_table(layout), keys_sd.UNET_PREFIX)
    assert all(back[name] is tensor for name, tensor in state.items())


# A name of each kind, as it stands in the released v1-5-pruned-emaonly.safetensors, with its shape.
SD15_NAMES = {
    "model.diffusion_model.time_embed.0.weight": (1280, 320),
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
    "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    "model.diffusion_model.input_blocks.11.0.out_layers.3.bias": (1280,),
    "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
    "model.diffusion_model.middle_block.2.in_layers.0.weight": (1280,),
    "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
    "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
    "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
    "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
    "first_stage_model.encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
    "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
    "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
    "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
    "first_stage_model.decoder.mid.block_2.norm1.weight": (512,),
    "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
    "first_stage_model.decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
    "first_stage_model.decoder.up.1.block.0.nin_shortcut.weight": (256, 512, 1, 1),
    "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
}


def test_full_names_are_those_of_released_files(full_unet, full_vae):
    ldm = keys_sd.unet_to_ldm(full_unet.state_dict()) | keys_sd.vae_to_ldm(full_vae.state_dict())
    assert {name: tuple(ldm[name].shape) for name in SD15_NAMES} == SD15_NAMES


def test_full_vae_both_ways(full_vae):
    state = full_vae.state_dict()
    ldm = keys_sd.vae_to_ldm(state)
    assert len(ldm) == len(state) == 248
    names = [name.removeprefix(keys_sd.VAE_PREFIX) for name in ldm]
    _there_and_back(state, ldm, keys_sd.ldm_vae_table(names), keys_sd.VAE_PREFIX)


def test_shapes_tell_the_configuration_of_sd15(full_unet, full_vae):
    ldm = _shapes(keys_sd.unet_to_ldm(full_unet.state_dict()), keys_sd.UNET_PREFIX)
    config = configs_sd.unet_config(ldm)
    wrong = {key: value for key, value in config.items() if _plain(full_unet.config[key]) != _plain(value)}
    assert wrong == {}
    ldm = _shapes(keys_sd.vae_to_ldm(full_vae.state_dict()), keys_sd.VAE_PREFIX)
    config = configs_sd.vae_config(ldm) | {"sample_size": full_vae.config.sample_size}
    wrong = {key: value for key, value in config.items() if _plain(full_vae.config[key]) != _plain(value)}
    assert wrong == {}


def _shapes(ldm, prefix):
    return {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in ldm.items()}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_shapes_tell_the_text_encoder_of_sd15():
    shapes = {
        "embeddings.token_embedding.weight": (49408, 768),
        "embeddings.position_embedding.weight": (77, 768),
        **{f"encoder.layers.{layer}.mlp.fc1.weight": (3072, 768) for layer in range(12)},
    }
    config = configs_sd.text_config(shapes)
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (12, 12, 3072)


def test_tiny_weights_come_back_to_the_bit():
    parts = tiny_sd1_parts()
    for state, to_ldm, prefix in (
        (parts.unet.state_dict(), keys_sd.unet_to_ldm, keys_sd.UNET_PREFIX),
        (parts.vae.state_dict(), keys_sd.vae_to_ldm, keys_sd.VAE_PREFIX),
    ):
        ldm = to_ldm(state)
        names = [name.removeprefix(prefix) for name in ldm]
        is_unet = prefix == keys_sd.UNET_PREFIX
        table = keys_sd.unet_table(keys_sd.ldm_unet_layout(names)) if is_unet else keys_sd.ldm_vae_table(names)
        back = _there_and_back(state, ldm, table, prefix)
        assert all(torch.equal(back[name].reshape(tensor.shape), tensor) for name, tensor in state.items())


def test_vae_attention_is_stored_as_convolution_in_single_files():
    ldm = keys_sd.vae_to_ldm(tiny_sd1_parts().vae.state_dict())
    assert ldm["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    assert ldm["first_stage_model.encoder.mid.attn_1.norm.weight"].shape == (16,)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight"),
        ("decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
        ("decoder.mid_block.attentions.0.group_norm.bias", "decoder.mid_block.attentions.0.group_norm.bias"),
        ("decoder.conv_in.weight", "decoder.conv_in.weight"),
    ],
)
def test_old_diffusers_names_of_the_vae(old, new):
    assert keys_sd.modern_vae_name(old) == new


def test_a_name_without_translation_is_refused():
    with pytest.raises(KeyError, match="nonsense"):
        keys_sd.unet_to_ldm({"nonsense.weight": torch.zeros(1)})
