"""Tiny models of the real architectures, built on the fly, as parts, as a Diffusers folder and as a single file.

Each is built once in a process; whoever asks for it gets a copy of its own.
"""
from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler
from transformers import CLIPTextModelWithProjection

from library.families.base import Layout
from library.families.clip import build_text_encoder
from library.families.diffusers_models import AutoencoderKL, UNet2DConditionModel
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.families.sdxl_text import build_penultimate_encoder, build_pooled_encoder
from library.families.tokenizers import VOCABULARY_FOLDER, load_tokenizer
from library.types import Parts
from tests.small_vocabulary import entries_of_text, write_vocabulary

# What a single file cannot tell (heads, groups) has the values that library/families/configs_sd.py assumes, so that the folder
# and the single file are the same model.
UNET_CONFIG = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
TWO_BLOCKS = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
# With as many cross-attentions as the full U-Net of SD 1 and 2: three blocks of two, the middle, three blocks of three.
SIXTEEN_ATTENTIONS = {
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
SD2_UNET_CONFIG = UNET_CONFIG | {"attention_head_dim": (1, 1, 1, 1), "use_linear_projection": True}
SDXL_UNET_CONFIG = UNET_CONFIG | {
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "cross_attention_dim": 32 + 48,
    "attention_head_dim": (1, 1, 1),
    "use_linear_projection": True,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "transformer_layers_per_block": (1, 1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 40 + 6 * 256,
}
VAE_CONFIG = {
    "sample_size": 64,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
}
SDXL_VAE_CONFIG = VAE_CONFIG | {"scaling_factor": 0.13025}
TEXT_CONFIG = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 32,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
SD2_TEXT_CONFIG = TEXT_CONFIG | {"hidden_act": "gelu"}
SDXL_TEXT_CONFIG_2 = TEXT_CONFIG | {"hidden_act": "gelu", "hidden_size": 48, "num_hidden_layers": 3, "projection_dim": 40}
SCHEDULER_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def tiny_sd1_parts(seed: int = 0, layers_per_block: int = 1, short: bool = False) -> Parts:
    """The modules in fp32 on the CPU, frozen, in eval mode; the same seed gives the same weights; no global generator moves.

    With 2 layers per block the U-Net has as many cross-attentions as the full model. A `short` one has two or three blocks
    instead of four on each side and knows few words, for runs in which it does not matter what the model is.
    """
    return _copy_of(_sd1_parts(seed, layers_per_block, short))


def tiny_sd2_parts(seed: int = 0) -> Parts:
    """As `tiny_sd1_parts`, of Stable Diffusion 2.x."""
    return _copy_of(_sd2_parts(seed))


def tiny_sdxl_parts(seed: int = 0) -> Parts:
    """As `tiny_sd1_parts`, of Stable Diffusion XL, with all the blocks that its U-Net really has."""
    return _copy_of(_sdxl_parts(seed))


def _copy_of(parts: Parts) -> Parts:
    unet, text_encoders, vae = copy.deepcopy((parts.unet, parts.text_encoders, parts.vae))
    return Parts(unet, text_encoders, [read_again(tokenizer) for tokenizer in parts.tokenizers], vae)


def read_again(tokenizer: Any) -> Any:
    """As it is in its folder, without words that it has learned since; quicker than to copy it."""
    return load_tokenizer(Path(tokenizer.name_or_path), pad_token=tokenizer.pad_token)


@cache
def _sd1_parts(seed: int, layers_per_block: int, short: bool) -> Parts:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = (TWO_BLOCKS if layers_per_block == 1 else SIXTEEN_ATTENTIONS) if short else {}
        unet = UNet2DConditionModel(**UNET_CONFIG | {"layers_per_block": layers_per_block} | blocks)
        vocabulary, entries = _few_words() if short else (VOCABULARY_FOLDER, {})
        text_encoder = build_text_encoder(TEXT_CONFIG | entries)
        vae = AutoencoderKL(**VAE_CONFIG)
    return _frozen(Parts(unet, [text_encoder], [load_tokenizer(vocabulary)], vae))


@cache
def _few_words() -> tuple[Path, dict[str, int]]:
    """The folder of a small vocabulary, and what a text encoder is told of it."""
    folder = Path(_written_before().name) / "few-words"
    return folder, entries_of_text(write_vocabulary(folder))


@cache
def _sd2_parts(seed: int) -> Parts:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**SD2_UNET_CONFIG)
        text_encoder = build_text_encoder(SD2_TEXT_CONFIG)
        vae = AutoencoderKL(**VAE_CONFIG)
    return _frozen(Parts(unet, [text_encoder], [load_tokenizer(pad_token="!")], vae))


@cache
def _sdxl_parts(seed: int) -> Parts:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**SDXL_UNET_CONFIG)
        text_encoders = [build_penultimate_encoder(TEXT_CONFIG), build_pooled_encoder(SDXL_TEXT_CONFIG_2)]
        vae = AutoencoderKL(**SDXL_VAE_CONFIG)
    return _frozen(Parts(unet, text_encoders, [load_tokenizer(), load_tokenizer(pad_token="!")], vae))


def _frozen(parts: Parts) -> Parts:
    for module in (parts.unet, *parts.text_encoders, parts.vae):
        module.eval().requires_grad_(False)
    return parts


def tiny_sd1_folder(path: Path, seed: int = 0, layers_per_block: int = 1, short: bool = False) -> Path:
    """Write `tiny_sd1_parts` as a Diffusers folder; returns it."""
    parts = _sd1_parts(seed, layers_per_block, short)
    return _written(path, f"sd1-{seed}-{layers_per_block}-{short}", lambda made: save_folder(made, parts, "StableDiffusionPipeline"))


def tiny_sd2_folder(path: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Write `tiny_sd2_parts(seed)` as a Diffusers folder; returns it."""
    parts = _sd2_parts(seed)
    name = f"sd2-{seed}-{prediction_type}"
    return _written(path, name, lambda made: save_folder(made, parts, "StableDiffusionPipeline", prediction_type))


def tiny_sdxl_folder(path: Path, seed: int = 0) -> Path:
    """Write `tiny_sdxl_parts(seed)` as a Diffusers folder; returns it."""
    parts = _sdxl_parts(seed)
    return _written(path, f"sdxl-{seed}", lambda made: save_folder(made, parts, "StableDiffusionXLPipeline"))


@cache
def _written_before() -> tempfile.TemporaryDirectory[str]:
    """Holds what this process has written; is removed at its end."""
    return tempfile.TemporaryDirectory(prefix="tiny-models-")


def _written(path: Path, name: str, write: Callable[[Path], object]) -> Path:
    """A copy, at `path`, of what was written once under this name."""
    path, made = Path(path), Path(_written_before().name) / name
    if not made.exists():
        write(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    if made.is_dir():
        shutil.copytree(made, path, dirs_exist_ok=True)
    else:
        shutil.copyfile(made, path)
    return path


def save_folder(path: Path, parts: Parts, pipeline: str, prediction_type: str = "epsilon") -> None:
    """A Diffusers folder, with the libraries' own means, not with ours."""
    parts.unet.save_pretrained(path / "unet")
    parts.vae.save_pretrained(path / "vae")
    index: dict[str, Any] = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    for suffix, encoder, tokenizer in zip(("", "_2"), parts.text_encoders, parts.tokenizers, strict=False):
        model = encoder.text_model
        if hasattr(encoder, "text_projection"):
            model = CLIPTextModelWithProjection(encoder.text_model.config)
            model.load_state_dict(encoder.state_dict())
        model.save_pretrained(path / f"text_encoder{suffix}")
        shutil.copytree(tokenizer.name_or_path, path / f"tokenizer{suffix}", dirs_exist_ok=True)
        _set_padding(path / f"tokenizer{suffix}", tokenizer.pad_token)
        index |= {
            f"text_encoder{suffix}": ["transformers", type(model).__name__],
            f"tokenizer{suffix}": ["transformers", "CLIPTokenizer"],
        }
    DDIMScheduler(**SCHEDULER_CONFIG, prediction_type=prediction_type).save_pretrained(path / "scheduler")
    index |= {"_class_name": pipeline, "_diffusers_version": diffusers.__version__, "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {name: [None, None] for name in ("feature_extractor", "image_encoder")}
    if pipeline == "StableDiffusionPipeline":
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    (path / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _set_padding(folder: Path, token: str) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | {"pad_token": token}), encoding="utf-8")


def tiny_sd1_single_file(path: Path, seed: int = 0) -> Path:
    """Write `tiny_sd1_parts(seed)` as one file with the LDM names: .safetensors, or a pickle for any other suffix; returns it."""
    return _save_file(Path(path), f"sd1-{seed}", _sd1_parts(seed, 1, False), StableDiffusion())


def tiny_sd2_single_file(path: Path, seed: int = 0) -> Path:
    """Write `tiny_sd2_parts(seed)` as one file; returns it."""
    return _save_file(Path(path), f"sd2-{seed}", _sd2_parts(seed), StableDiffusion(name="sd_v2"))


def tiny_sdxl_single_file(path: Path, seed: int = 0) -> Path:
    """Write `tiny_sdxl_parts(seed)` as one file; returns it."""
    return _save_file(Path(path), f"sdxl-{seed}", _sdxl_parts(seed), StableDiffusionXL())


def _save_file(path: Path, name: str, parts: Parts, family: StableDiffusion | StableDiffusionXL) -> Path:
    layout: Layout = "safetensors" if path.suffix == ".safetensors" else "ckpt"
    return _written(path, f"{name}.{layout}", lambda made: family.save(parts, made, layout, None, {}))
