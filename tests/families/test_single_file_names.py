"""Names of tensors in single files: the full key sets of the released models, there and back, and what their shapes tell."""
from __future__ import annotations

import pytest
import torch
from diffusers.loaders import single_file_utils as diffusers_conversion

from library.families import keys_sd, sd, sdxl
from library.families.keys_openclip import clip_name
from library.families.saving_file import Model, single_file_tensors, untold_configs
from library.families.saving_openclip import invented_tensors
from tests.full_models import OPENCLIP_BIGG, OPENCLIP_H, full_modules

FAMILIES = ("sd_v1", "sd_v2", "sdxl")
FILE_PARTS = {"sd_v1": sd.file_parts("sd_v1"), "sd_v2": sd.file_parts("sd_v2"), "sdxl": sdxl.FILE_PARTS}
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

# A name of each kind, as it stands in a released file, with its shape.
SD_NAMES = {
    UNET + "time_embed.0.weight": (1280, 320),
    UNET + "input_blocks.0.0.weight": (320, 4, 3, 3),
    UNET + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
    UNET + "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    UNET + "input_blocks.11.0.out_layers.3.bias": (1280,),
    UNET + "middle_block.2.in_layers.0.weight": (1280,),
    UNET + "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
    UNET + "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
    UNET + "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
    UNET + "out.2.weight": (4, 320, 3, 3),
    VAE + "encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
    VAE + "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
    VAE + "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
    VAE + "encoder.mid.attn_1.norm.weight": (512,),
    VAE + "decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
    VAE + "decoder.mid.block_2.norm1.weight": (512,),
    VAE + "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
    VAE + "decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
    VAE + "decoder.up.1.block.0.nin_shortcut.weight": (256, 512, 1, 1),
    VAE + "quant_conv.weight": (8, 8, 1, 1),
}
NAMES = {
    "sd_v1": SD_NAMES
    | {
        UNET + "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        TEXT + "transformer.text_model.embeddings.position_embedding.weight": (77, 768),
        TEXT + "transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    },
    "sd_v2": SD_NAMES
    | {
        UNET + "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280),
        TEXT + "model.positional_embedding": (77, 1024),
        TEXT + "model.token_embedding.weight": (49408, 1024),
        TEXT + "model.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        TEXT + "model.transformer.resblocks.0.attn.in_proj_bias": (3072,),
        TEXT + "model.transformer.resblocks.22.mlp.c_proj.weight": (1024, 4096),
        TEXT + "model.ln_final.bias": (1024,),
        TEXT + "model.text_projection": (1024, 1024),
        TEXT + "model.logit_scale": (),
    },
    "sdxl": {
        UNET + "label_emb.0.0.weight": (1280, 2816),
        UNET + "label_emb.0.2.weight": (1280, 1280),
        UNET + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        UNET + "input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight": (640, 2048),
        UNET + "input_blocks.8.1.transformer_blocks.9.ff.net.2.bias": (1280,),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280),
        UNET + "output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
        UNET + "output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        UNET + "output_blocks.8.0.skip_connection.weight": (320, 640, 1, 1),
        "conditioner.embedders.0.transformer.text_model.encoder.layers.11.self_attn.q_proj.weight": (768, 768),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
        VAE + "decoder.mid.attn_1.k.weight": (512, 512, 1, 1),
    },
}
# UNet + VAE + text encoders. Released files also hold position ids and, of 2.x and XL, buffers or a logit scale.
COUNTS = {"sd_v1": 686 + 248 + 196, "sd_v2": 686 + 248 + 24 * 12 + 4 + 2, "sdxl": 1680 + 248 + 196 + 32 * 12 + 5}


def full_file(family):
    """Every tensor of the file that a model without an original is saved as, on the meta device."""
    invented = {"invented": invented_tensors} if family == "sd_v2" else {}
    model = Model(full_modules(family), FILE_PARTS[family], None, **invented)
    return model, single_file_tensors(model, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_names_are_those_of_released_files(family):
    tensors = full_file(family)[1]
    assert {name: tensors[name].shape for name in NAMES[family]} == NAMES[family]
    assert len(tensors) == COUNTS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_tell_the_configurations_of_the_released_models(family):
    assert untold_configs(*full_file(family)) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_full_names_there_and_back(family):
    model, tensors = full_file(family)
    for name, part in model.parts.items():
        inside = {key.removeprefix(part.prefix): each.shape for key, each in tensors.items() if key.startswith(part.prefix)}
        places = part.to_read(inside)
        state = model.modules[name].state_dict()
        assert places.keys() == state.keys()
        for key, tensor in state.items():
            shape = places[key].shape_read(inside[places[key].name])
            assert shape[: tensor.ndim] == tuple(tensor.shape)
            assert set(shape[tensor.ndim :]) <= {1}


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_the_same_names(family):
    """Its own conversion of our full key set gives the modules' names and shapes."""
    model, tensors = full_file(family)
    checkpoint = {name: torch.empty(each.shape, device="meta") for name, each in tensors.items()}
    modules = dict(model.modules)
    unet = diffusers_conversion.convert_ldm_unet_checkpoint(dict(checkpoint), modules["unet"].config)
    assert shapes(unet) == shapes(modules["unet"].state_dict())
    vae = diffusers_conversion.convert_ldm_vae_checkpoint(dict(checkpoint), modules["vae"].config)
    assert shapes(vae) == shapes(modules["vae"].state_dict())
    if family != "sd_v2":
        first = diffusers_conversion.convert_ldm_clip_checkpoint(dict(checkpoint))
        assert shapes(first) == shapes(modules["text_encoder"].state_dict())
    if family != "sd_v1":
        part = "text_encoder_2" if family == "sdxl" else "text_encoder"
        prefix = model.parts[part].prefix
        encoder = modules[part]
        second = diffusers_conversion.convert_open_clip_checkpoint(encoder.text_model, dict(checkpoint), prefix)
        second = {clip_name(name): tensor for name, tensor in second.items()}
        unused = {"text_projection.weight"} if family == "sd_v2" else set()
        assert shapes({name: second[name] for name in second.keys() - unused}) == shapes(encoder.state_dict())


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(("family", "part", "config"), [("sd_v2", "text_encoder", OPENCLIP_H), ("sdxl", "text_encoder_2", OPENCLIP_BIGG)])
def test_the_layers_that_are_read(family, part, config):
    model, tensors = full_file(family)
    prefix = model.parts[part].prefix
    told = model.parts[part].config({name.removeprefix(prefix): each.shape for name, each in tensors.items()})
    assert {key: told[key] for key in config} == config


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
        keys_sd.must_translate("nonsense.weight", {"conv_in": "input_blocks.0.0"})
