"""The smallest models of each family, as Diffusers folders: short U-Nets, and tokenizers that know single letters only."""

from __future__ import annotations

from pathlib import Path

import torch

from library.families.clip import build_text_encoder
from library.families.diffusers_models import AutoencoderKL, UNet2DConditionModel
from library.families.sdxl_text import build_penultimate_encoder, build_pooled_encoder
from library.families.tokenizers import load_tokenizer
from library.types import Parts
from tests.small_vocabulary import ENDS, LETTERS, entries_of_text, write_vocabulary
from tests.tiny_models import (
    SD2_TEXT_CONFIG,
    SD2_UNET_CONFIG,
    SDXL_TEXT_CONFIG_2,
    SDXL_UNET_CONFIG,
    SDXL_VAE_CONFIG,
    SIXTEEN_ATTENTIONS,
    TEXT_CONFIG,
    TWO_BLOCKS,
    UNET_CONFIG,
    VAE_CONFIG,
    save_folder,
)  # fmt: skip

OF_LETTERS = entries_of_text(LETTERS + len(ENDS))
# The U-Net, the text encoder, and what the tokenizer is told.
SD1 = (UNET_CONFIG, TEXT_CONFIG, {})
SD2 = (SD2_UNET_CONFIG | {"attention_head_dim": 1}, SD2_TEXT_CONFIG, {"pad_token": "!"})
SHORT_SDXL = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "attention_head_dim": (1, 1),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1),
}
OBJECTIVES = {"sd1": "epsilon", "sd2": "epsilon", "sd2_v": "v_prediction", "sdxl": "epsilon"}


def write_smallest(path: Path, name: str, sixteen_attentions: bool = False) -> Path:
    """The model of a name in OBJECTIVES; returns its folder. Its weights are always the same."""
    vocabulary = path / "letters"
    write_vocabulary(vocabulary, ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = _sdxl(vocabulary) if name == "sdxl" else _sd(name, vocabulary, sixteen_attentions)
    pipeline = "StableDiffusionXLPipeline" if name == "sdxl" else "StableDiffusionPipeline"
    save_folder(path, parts, pipeline, OBJECTIVES[name])
    return path


def _sd(name: str, vocabulary: Path, sixteen_attentions: bool) -> Parts:
    unet, text, padding = SD1 if name == "sd1" else SD2
    return Parts(
        UNet2DConditionModel(**unet | (SIXTEEN_ATTENTIONS if sixteen_attentions else TWO_BLOCKS)),
        [build_text_encoder(text | OF_LETTERS | {"num_hidden_layers": 1})],
        [load_tokenizer(vocabulary, **padding)],
        AutoencoderKL(**VAE_CONFIG),
    )


def _sdxl(vocabulary: Path) -> Parts:
    texts = TEXT_CONFIG | OF_LETTERS, SDXL_TEXT_CONFIG_2 | OF_LETTERS | {"num_hidden_layers": 2}
    return Parts(
        UNet2DConditionModel(**SDXL_UNET_CONFIG | SHORT_SDXL),
        [build_penultimate_encoder(texts[0]), build_pooled_encoder(texts[1])],
        [load_tokenizer(vocabulary), load_tokenizer(vocabulary, pad_token="!")],
        AutoencoderKL(**SDXL_VAE_CONFIG),
    )
