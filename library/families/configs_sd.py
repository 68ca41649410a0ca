"""What a single file of Stable Diffusion does not say in words: the modules' configurations, read off the tensors' shapes.

Four things cannot be seen in shapes and are taken to be what Stable Diffusion 1.x has: 8 attention heads in the UNet
(Diffusers calls that number `attention_head_dim`), text heads of 64 channels, 32 groups in group norms (fewer where some
width is no multiple of 32), and a latent scale of 0.18215. A model that differs must be given as a Diffusers folder.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from library.families.keys_sd import ldm_unet_layout
from library.families.weight_files import Shapes

UNET_HEADS = 8
TEXT_HEAD_WIDTH = 64
NORM_GROUPS = 32
LATENT_SCALE = 0.18215


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """From LDM names without `model.diffusion_model.`; KeyError if this is not such a UNet."""
    layout = ldm_unet_layout(shapes)
    stride = layout.layers + 1
    widths = [shapes[f"input_blocks.{1 + level * stride}.0.out_layers.3.weight"][0] for level in range(layout.levels)]
    keys = next(shape for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight"))
    projection = next(shape for name, shape in shapes.items() if name.endswith(".1.proj_in.weight"))
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layout.layers,
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in layout.attention],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(layout.attention)],
        "cross_attention_dim": keys[1],
        "attention_head_dim": UNET_HEADS,
        "use_linear_projection": len(projection) == 2,
        "norm_num_groups": _groups(widths),
        "sample_size": 64,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """From LDM names without `first_stage_model.`; KeyError if this is not such an autoencoder."""
    widths: list[int] = []
    while (name := f"encoder.down.{len(widths)}.block.0.conv1.weight") in shapes:
        widths.append(shapes[name][0])
    layers = 0
    while f"encoder.down.0.block.{layers}.conv1.weight" in shapes:
        layers += 1
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "norm_num_groups": _groups(widths),
        "scaling_factor": LATENT_SCALE,
        "sample_size": 512,
    }


def text_config(shapes: Shapes) -> dict[str, Any]:
    """From the names of transformers' CLIPTextModel (`embeddings…`, `encoder…`); KeyError if this is not such an encoder."""
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    layers = 0
    while f"encoder.layers.{layers}.mlp.fc1.weight" in shapes:
        layers += 1
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // TEXT_HEAD_WIDTH),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }


def _groups(widths: Sequence[int]) -> int:
    return math.gcd(NORM_GROUPS, *widths)
