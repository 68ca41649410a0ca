"""The modules of the released models in their real shapes, without memory for the numbers."""
from __future__ import annotations

from functools import cache

import torch
from torch import nn

from library.families.clip import build_text_encoder
from library.families.diffusers_models import AutoencoderKL, UNet2DConditionModel
from library.families.sdxl_text import build_penultimate_encoder, build_pooled_encoder
from library.types import Parts

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
LINEAR = {"use_linear_projection": True}
UNETS = {  # otherwise Diffusers' defaults are those of SD 1.x
    "sd_v1": {"cross_attention_dim": 768},
    "sd_v2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), **LINEAR},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        **LINEAR,
    },
}


def text_config(width: int, layers: int, activation: str) -> dict[str, object]:
    return {
        "vocab_size": 49408, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "max_position_embeddings": 77, "hidden_act": activation, "projection_dim": width,
    }  # fmt: skip


CLIP_L, OPENCLIP_H, OPENCLIP_BIGG = text_config(768, 12, "quick_gelu"), text_config(1024, 23, "gelu"), text_config(1280, 32, "gelu")


@cache
def full_modules(family: str) -> dict[str, nn.Module]:
    """By the names of the parts; `family`: sd_v1, sd_v2 or sdxl."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {"unet": UNet2DConditionModel(**UNETS[family])}
        if family == "sdxl":
            modules["text_encoder"] = build_penultimate_encoder(CLIP_L)
            modules["text_encoder_2"] = build_pooled_encoder(OPENCLIP_BIGG)
        else:
            modules["text_encoder"] = build_text_encoder(CLIP_L if family == "sd_v1" else OPENCLIP_H)
        modules["vae"] = AutoencoderKL(**VAE, scaling_factor=0.13025 if family == "sdxl" else 0.18215)
    return modules


def full_parts(family: str) -> Parts:
    """The same modules as families give them, without tokenizers."""
    modules = full_modules(family)
    encoders = [module for name, module in modules.items() if name.startswith("text_encoder")]
    return Parts(modules["unet"], encoders, [], modules["vae"])
