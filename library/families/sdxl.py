"""The family Stable Diffusion XL. No module that is heavy to import is imported before the weights are asked for."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.text_layout import TextLayout
from library.errors import UserError
from library.families.base import Objective
from library.families.objective import objective_of
from library.families.reading import read_file, read_folder
from library.families.single_file import clip_part, openclip_part, unet_part, vae_part
from library.families.source import NOT_TRAINED, Layout, ModelSource, Trained
from library.families.tokenizers import EXCLAMATION_MARK, cached_vocabulary, load_tokenizer
from library.families.weight_files import Shapes
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import CLIPTokenizer

    from library.config.options.model import ModelOptions

TITLE = "Stable Diffusion XL"
LATENT_SCALE = 0.13025
TOKENIZER_IDS = {"tokenizer": "openai/clip-vit-large-patch14", "tokenizer_2": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"}
FILE_PARTS = {
    "unet": unet_part(),
    "text_encoder": clip_part("conditioner.embedders.0.transformer."),
    "text_encoder_2": openclip_part("conditioner.embedders.1.model.", unused_layers=0, with_projection=True),
    "vae": vae_part(LATENT_SCALE),
}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "vae": ["diffusers", "AutoencoderKL"],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True)
class StableDiffusionXL:
    """Stable Diffusion XL; see `library.families.base.Family` for what the names mean."""

    source: ModelSource | None = None  # None: for modules that were made and not loaded
    objective: Objective = "epsilon"
    latent_scale: float = LATENT_SCALE
    name: str = "sdxl"
    notes: tuple[str, ...] = ()
    channels: int = 4
    vae_scale: int = 8
    bucket_step: int = 32
    default_resolution: int = 1024
    base_model_version: str = "sdxl_base_v1-0"
    modelspec_architecture: str = "stable-diffusion-xl-v1-base"
    latent_cache_suffix: str = "_sdxl"
    adapter_prefixes: tuple[str, ...] = ("lora_unet", "lora_te1", "lora_te2")

    @property
    def source_layout(self) -> Layout:
        return self.source.layout if self.source else "safetensors"

    def parameter_counts(self) -> dict[str, int]:
        return {name: part.parameter_count for name, part in self.source.parts.items()} if self.source else {}

    def load(self, options: ModelOptions, dtype: torch.dtype, device: torch.device | str) -> Parts:
        from library.families.loading import load_module, load_unet, load_vae
        from library.families.sdxl_text import build_penultimate_encoder, build_pooled_encoder

        if self.source is None:
            raise ValueError("this family was made without a checkpoint")
        sources = self.source.parts_read(mapped=not options.disable_mmap_load_safetensors)
        unet = load_unet(sources["unet"], self.default_resolution // self.vae_scale, dtype, device)
        text_encoders: list[nn.Module] = [
            load_module(sources["text_encoder"], build_penultimate_encoder, dtype, device),
            load_module(sources["text_encoder_2"], build_pooled_encoder, dtype, device),
        ]
        vae = load_vae(sources["vae"], dtype, device, options.no_half_vae)
        return Parts(unet, text_encoders, self._tokenizers(self.source, options.tokenizer_cache_dir), vae)

    def _tokenizers(self, source: ModelSource, cache: str | None) -> list[CLIPTokenizer]:
        """Of those that ship, the second pads with token 0, yet reads the exclamation mark in a caption as a word."""
        own = source.tokenizer_folders
        tokenizers = [load_tokenizer(own.get(name) or cached_vocabulary(TOKENIZER_IDS[name], cache)) for name in TOKENIZER_IDS]
        if "tokenizer_2" not in own:
            tokenizers[1].pad_token = EXCLAMATION_MARK
        return tokenizers

    def encode_text(self, parts: Parts, captions: list[str], settings: TextSettings) -> Conditioning:
        from library.families.sdxl_text import encode_text

        return encode_text(parts, captions, settings)

    def text_layout(self, parts: Parts) -> TextLayout:
        encoders: list[Any] = list(parts.text_encoders)
        widths = tuple(encoder.text_model.config.hidden_size for encoder in encoders)
        return TextLayout("_te_outputs", ("hidden_state1", "hidden_state2"), widths, "pool2")

    def encode_images(self, parts: Parts, images: Tensor) -> Posterior:
        from library.families.autoencoder import encode_images

        return encode_images(parts.vae, images)

    def decode_latents(self, parts: Parts, latents: Tensor) -> Tensor:
        from library.families.autoencoder import decode_latents

        return decode_latents(parts.vae, latents / self.latent_scale)

    def predict(
        self, parts: Parts, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, batch: Batch | None = None
    ) -> Tensor:
        weight = next(parts.unet.parameters())
        assert conditioning.pooled is not None
        sizes = self._sizes(noisy_latents, batch).to(weight.device)
        return parts.unet(
            noisy_latents.to(weight.dtype),
            timesteps,
            encoder_hidden_states=conditioning.hidden_states.to(weight.dtype),
            added_cond_kwargs={"text_embeds": conditioning.pooled.to(weight.dtype), "time_ids": sizes},
        ).sample

    def _sizes(self, noisy_latents: Tensor, batch: Batch | None) -> Tensor:
        """[B, 6]: original height and width, top and left of the crop, target height and width. A sample is nobody's crop."""
        import torch

        if batch is not None:
            return torch.cat([batch.original_sizes_hw, batch.crop_top_lefts, batch.target_sizes_hw], dim=1)
        height, width = (self.vae_scale * side for side in noisy_latents.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]] * len(noisy_latents))

    def save(
        self,
        parts: Parts,
        path: Path,
        layout: Layout,
        dtype: torch.dtype | None,
        metadata: Mapping[str, str],
        trained: Trained = NOT_TRAINED,
    ) -> None:
        from library.families.saving import FolderFacts, Model, save_model, schedule_facts

        first, second = parts.text_encoders
        modules = {"unet": parts.unet, "text_encoder": first, "text_encoder_2": second, "vae": parts.vae}
        schedule = schedule_facts(self.objective, trained.zero_terminal_snr)
        facts = FolderFacts(INDEX, SCHEDULER, schedule, {"tokenizer": None, "tokenizer_2": EXCLAMATION_MARK})
        save_model(Model(modules, FILE_PARTS, self.source, trained), facts, path, layout, dtype, metadata)


def from_folder(folder: Path, name: str, options: ModelOptions) -> StableDiffusionXL:
    """The family for a model in Diffusers layout."""
    return _bound(read_folder(folder, FILE_PARTS, options.vae), options)


def from_file(path: Path, shapes: Shapes, name: str, options: ModelOptions) -> StableDiffusionXL:
    """The family for a single file with these tensors."""
    return _bound(read_file(path, shapes, FILE_PARTS, TITLE, options.vae), options)


def _bound(source: ModelSource, options: ModelOptions) -> StableDiffusionXL:
    if options.clip_skip is not None:
        raise UserError(
            f"clip_skip = {options.clip_skip}: {source.path} is {TITLE}, which always reads the layer before the last: "
            "delete clip_skip"
        )
    scale = source.parts["vae"].config.get("scaling_factor", LATENT_SCALE)
    return StableDiffusionXL(source, objective_of(source, options), scale)
