"""Tiny models of the real SD 1.x architecture, built on the fly, as parts, as a Diffusers folder and as a single file."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from library.families.clip import VOCABULARY_FOLDER, TextEncoder, load_tokenizer
from library.families.keys_sd import text_encoder_to_ldm, unet_to_ldm, vae_to_ldm
from library.types import Parts

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
SCHEDULER_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def tiny_sd1_parts(seed: int = 0, layers_per_block: int = 1) -> Parts:
    """The modules in fp32 on the CPU, frozen, in eval mode; the same seed gives the same weights; no global generator moves.

    With 2 layers per block the U-Net has as many cross-attentions as the full model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**UNET_CONFIG | {"layers_per_block": layers_per_block})
        text_encoder = TextEncoder(CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG)))
        vae = AutoencoderKL(**VAE_CONFIG)
    for module in (unet, text_encoder, vae):
        module.eval().requires_grad_(False)
    return Parts(unet, [text_encoder], [load_tokenizer()], vae)


def tiny_sd1_folder(path: Path, seed: int = 0, layers_per_block: int = 1) -> Path:
    """Write `tiny_sd1_parts` as a Diffusers folder; returns it."""
    path = Path(path)
    parts = tiny_sd1_parts(seed, layers_per_block)
    parts.unet.save_pretrained(path / "unet")
    parts.vae.save_pretrained(path / "vae")
    parts.text_encoders[0].text_model.save_pretrained(path / "text_encoder")
    shutil.copytree(VOCABULARY_FOLDER, path / "tokenizer", dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULER_CONFIG).save_pretrained(path / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    (path / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return path


def tiny_sd1_single_file(path: Path, seed: int = 0) -> Path:
    """Write `tiny_sd1_parts(seed)` as one file with the LDM names: .safetensors, or a pickle for any other suffix; returns it."""
    path = Path(path)
    parts = tiny_sd1_parts(seed)
    state = unet_to_ldm(parts.unet.state_dict())
    state |= vae_to_ldm(parts.vae.state_dict())
    state |= text_encoder_to_ldm(parts.text_encoders[0].state_dict())
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 0, "global_step": 0}, path)
    return path
