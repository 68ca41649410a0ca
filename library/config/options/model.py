"""Options about the base model and the network that is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from library.config.declare import option
from library.config.scripts import CACHING, FULL, NETWORK, TRAINING_TEXT_ON_DEMAND


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The base model: where it comes from and how its text encoder is read."""

    pretrained_model_name_or_path: str | None = option(
        None,
        "The base model: a .safetensors or .ckpt file, a folder in Diffusers layout, or a Hugging Face model id.",
        private=True,
    )
    vae: str | None = option(
        None, "Another VAE instead of the base model's: a file, a folder or a Hugging Face model id.", private=True
    )
    tokenizer_cache_dir: str | None = option(
        None, "Folder in which tokenizers are kept, for machines without network access.", private=True
    )
    v2: bool = option(False, "The base model is a Stable Diffusion 2.x model.")
    sdxl: bool = option(False, "The base model is a Stable Diffusion XL model.", scripts=CACHING)
    v_parameterization: bool = option(False, "The base model predicts v instead of the noise (SD 2.x 768 and other v models).")
    clip_skip: int | None = option(
        None,
        "Take the text encoder's output from this layer counted from the end; 1 is the last layer, the usual one.",
        least=1,
        most=12,
    )
    max_token_length: int | None = option(
        None, "Longest caption in tokens. Left out, it is 75; longer captions are cut.", choices=(150, 225)
    )
    weighted_captions: bool = option(False, "Read weights in captions: (more), [less], (exactly:1.3).")
    no_token_padding: bool = option(False, "Pad captions to the longest of their batch, not to the full length.")
    disable_mmap_load_safetensors: bool = option(
        False, "Read .safetensors files instead of mapping them into memory: faster on some network drives and in WSL."
    )
    no_half_vae: bool = option(False, "Run the VAE in float32 under mixed precision; for VAEs that give NaN or black pictures.")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The network (for example a LoRA) that is attached to the base model and trained."""

    SCRIPTS: ClassVar = NETWORK

    network_module: str | None = option(None, "Python module that makes the network, for example networks.lora.")
    network_dim: int | None = option(
        None, "Rank of the network. Left out, the network module decides (networks.lora: 4).", least=1
    )
    network_alpha: float = option(1.0, "The network's output is scaled by network_alpha / network_dim.", least=0)
    network_dropout: float | None = option(
        None, "Probability with which each of the network's inner values is dropped.", least=0, most=1
    )
    network_args: tuple[str, ...] | None = option(None, "Further arguments of the network module, as key=value.")
    network_weights: str | None = option(None, "Start from the weights in this file of an earlier network.", private=True)
    dim_from_weights: bool = option(False, "Take rank and alpha of every module from network_weights.")
    network_train_unet_only: bool = option(False, "Train the network's U-Net part only.")
    network_train_text_encoder_only: bool = option(False, "Train the network's text encoder part only.")
    scale_weight_norms: float | None = option(
        None, "After each step, scale modules down whose weight norm is above this value; 1.0 is a good start.", least=0
    )
    base_weights: tuple[str, ...] | None = option(
        None, "Network files that are merged into the base model before training.", private=True
    )
    base_weights_multiplier: tuple[float, ...] | None = option(
        None, "Strength of each file in base_weights, in their order; 1.0 where none is given."
    )
    training_comment: str | None = option(None, "A remark that is stored in the trained file's metadata.")
    no_metadata: bool = option(False, "Store only the metadata that programs need to load the file, nothing about the training.")


@dataclass(frozen=True, kw_only=True)
class FullOptions:
    """Which parts are trained where the model itself is."""

    SCRIPTS: ClassVar = FULL

    train_text_encoder: bool = option(False, "Train the text encoder too.", scripts=TRAINING_TEXT_ON_DEMAND)
    stop_text_encoder_training: int | None = option(
        None, "Train the text encoder for this many steps only; 0 and -1 leave it as it is from the start.", least=-1
    )
