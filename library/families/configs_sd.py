"""What a single file of Stable Diffusion does not say in words: the modules' configurations, read off the tensors' shapes.

Five things cannot be seen in shapes and are taken to be what the released models have: 8 attention heads in the UNet of 1.x
(Diffusers calls that number `attention_head_dim`), heads of 64 channels elsewhere, 32 groups in group norms (fewer where some
width is no multiple of 32), the text encoder's activation and the latent scale. A file that we write of a model that differs
says so in its metadata; another such file must be given as a Diffusers folder.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from library.families.keys_sd import UNetLayout, ldm_unet_layout
from library.families.weight_files import Shapes

HEADS_OF_SD1 = 8
HEAD_WIDTH = 64
NORM_GROUPS = 32
LATENT_SCALE = 0.18215
SIZE_EMBEDDING_WIDTH = 256  # of each number of a picture's sizes, which SDXL is told


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """From LDM names without `model.diffusion_model.`; KeyError or StopIteration if this is not such a UNet."""
    layout = ldm_unet_layout(shapes)
    stride = layout.layers + 1
    widths = [shapes[f"input_blocks.{1 + level * stride}.0.out_layers.3.weight"][0] for level in range(layout.levels)]
    keys = next(shape for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight"))
    linear = len(next(shape for name, shape in shapes.items() if name.endswith(".1.proj_in.weight"))) == 2
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layout.layers,
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in layout.attention],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(layout.attention)],
        "cross_attention_dim": keys[1],
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in widths] if linear else HEADS_OF_SD1,
        "use_linear_projection": linear,
        "norm_num_groups": _groups(widths),
    }
    if "label_emb.0.0.weight" not in shapes:
        return config
    return config | {
        "transformer_layers_per_block": _transformer_layers(shapes, layout),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_EMBEDDING_WIDTH,
        "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
    }


def _transformer_layers(shapes: Iterable[str], layout: UNetLayout) -> list[int]:
    """How many layers each level's transformers have; 1 for a level without any."""
    names = set(shapes)
    counts = []
    for level in range(layout.levels):
        start = f"input_blocks.{1 + level * (layout.layers + 1)}.1.transformer_blocks."
        count = 0
        while f"{start}{count}.norm1.weight" in names:
            count += 1
        counts.append(max(1, count))
    return counts


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
        "sample_size": 512,
    }


def text_config(shapes: Shapes, activation: str) -> dict[str, Any]:
    """From transformers' names (`text_model.…`); KeyError if this is not such an encoder."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = 0
    while f"text_model.encoder.layers.{layers}.mlp.fc1.weight" in shapes:
        layers += 1
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": activation,
        "projection_dim": shapes.get("text_projection.weight", (width,))[0],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }


def _groups(widths: Sequence[int]) -> int:
    return math.gcd(NORM_GROUPS, *widths)
