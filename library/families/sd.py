"""The family Stable Diffusion 1.x. No module that is heavy to import is imported before the weights are asked for."""
from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.text_layout import TextLayout
from library.errors import UserError
from library.families.base import Objective
from library.families.configs_sd import LATENT_SCALE
from library.families.sd_source import read_file, read_folder
from library.families.source import ModelSource
from library.families.weight_files import Shapes
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.config.options.model import ModelOptions

TOKENIZER_ID = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class StableDiffusion:
    """Stable Diffusion 1.x; see `library.families.base.Family` for what the names mean."""

    source: ModelSource | None = None  # None: for modules that were made and not loaded
    objective: Objective = "epsilon"
    latent_scale: float = LATENT_SCALE
    name: str = "sd_v1"
    channels: int = 4
    vae_scale: int = 8
    bucket_step: int = 64
    default_resolution: int = 512
    base_model_version: str = "sd_v1"
    modelspec_architecture: str = "stable-diffusion-v1"
    adapter_prefixes: tuple[str, ...] = ("lora_unet", "lora_te")

    def parameter_counts(self) -> dict[str, int]:
        return {name: part.parameter_count for name, part in self.source.parts.items()} if self.source else {}

    def load(self, options: ModelOptions, dtype: torch.dtype, device: torch.device | str) -> Parts:
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        from library.families.clip import TextEncoder, load_tokenizer
        from library.families.loading import load_module

        if self.source is None:
            raise ValueError("this family was made without a checkpoint")
        sources = self.source.parts
        unet = load_module(sources["unet"], UNet2DConditionModel.from_config, dtype, device)
        text_model = load_module(sources["text_encoder"], lambda config: CLIPTextModel(CLIPTextConfig(**config)), dtype, device)
        vae_dtype = torch.float32 if options.no_half_vae else dtype
        vae = load_module(sources["vae"], AutoencoderKL.from_config, vae_dtype, device)
        tokenizer = load_tokenizer(tokenizer_folder(self.source, options.tokenizer_cache_dir))
        return Parts(unet, [TextEncoder(text_model).eval()], [tokenizer], vae)

    def encode_text(self, parts: Parts, captions: list[str], settings: TextSettings) -> Conditioning:
        from library.families.clip import encode_captions

        return Conditioning(encode_captions(parts.text_encoders[0], parts.tokenizers[0], captions, settings))

    def text_layout(self, parts: Parts) -> TextLayout:
        encoder: Any = parts.text_encoders[0]
        return TextLayout("_sd_te", ("hidden_state",), (encoder.text_model.config.hidden_size,))

    def encode_images(self, parts: Parts, images: Tensor) -> Posterior:
        import torch

        vae: Any = parts.vae
        weight = next(vae.parameters())
        with torch.autocast(weight.device.type, enabled=False):  # the VAE runs in the precision that it was loaded in
            distribution = vae.encode(images.to(weight)).latent_dist
        return Posterior(distribution.mean.float(), distribution.std.float())

    def decode_latents(self, parts: Parts, latents: Tensor) -> Tensor:
        import torch

        vae: Any = parts.vae
        weight = next(vae.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            return vae.decode((latents / self.latent_scale).to(weight)).sample.float()

    def predict(
        self, parts: Parts, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, batch: Batch | None = None
    ) -> Tensor:
        dtype = next(parts.unet.parameters()).dtype
        return parts.unet(noisy_latents.to(dtype), timesteps, encoder_hidden_states=conditioning.hidden_states.to(dtype)).sample


def from_folder(folder: Path, options: ModelOptions) -> StableDiffusion:
    """The family for a model in Diffusers layout."""
    return _bound(read_folder(folder, options.vae), options)


def from_file(path: Path, shapes: Shapes, options: ModelOptions) -> StableDiffusion:
    """The family for a single file with these tensors."""
    return _bound(read_file(path, shapes, options.vae), options)


def _bound(source: ModelSource, options: ModelOptions) -> StableDiffusion:
    layers = source.parts["text_encoder"].config.get("num_hidden_layers", 12)
    if options.clip_skip is not None and options.clip_skip > layers:
        raise UserError(f"clip_skip = {options.clip_skip}: the text encoder of {source.path} has {layers} layers")
    if source.scheduler_config.get("prediction_type") == "v_prediction" and not options.v_parameterization:
        raise UserError(f"{source.path}: its scheduler says that this model predicts v: add v_parameterization = true")
    scale = source.parts["vae"].config.get("scaling_factor", LATENT_SCALE)
    return StableDiffusion(source, "v" if options.v_parameterization else "epsilon", scale)


def tokenizer_folder(source: ModelSource, cache: str | None) -> Path:
    """The model's own tokenizer, or CLIP's from the cache folder, which is filled with the one that ships with the project."""
    from library.families.clip import VOCABULARY_FOLDER

    if source.tokenizer_folder is not None:
        return source.tokenizer_folder
    if cache is None:
        return VOCABULARY_FOLDER
    folder = Path(cache) / TOKENIZER_ID.replace("/", "_")
    if not folder.exists():
        shutil.copytree(VOCABULARY_FOLDER, folder)
    return folder
