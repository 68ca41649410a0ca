"""The family Stable Diffusion 1.x and 2.x. No module that is heavy to import is imported before the weights are asked for."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.text_layout import TextLayout
from library.errors import UserError
from library.families.base import Objective
from library.families.configs_sd import LATENT_SCALE
from library.families.objective import objective_of
from library.families.reading import read_file, read_folder
from library.families.single_file import FilePart, clip_part, openclip_part, unet_part, vae_part
from library.families.source import NOT_TRAINED, Layout, ModelSource, Trained
from library.families.tokenizers import EXCLAMATION_MARK, cached_vocabulary, load_tokenizer
from library.families.weight_files import Shapes
from library.types import Batch, Conditioning, Parts, Posterior, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import CLIPTokenizer

    from library.config.options.model import ModelOptions

V1, V2 = "sd_v1", "sd_v2"
TITLES = {V1: "Stable Diffusion 1.x", V2: "Stable Diffusion 2.x"}
TOKENIZER_IDS = {V1: "openai/clip-vit-large-patch14", V2: "stabilityai/stable-diffusion-2"}
UNUSED_LAYERS = 1  # of the text encoder of 2.x: files have 24, the model reads the 23rd
TEXT_PARTS = {
    V1: clip_part("cond_stage_model.transformer."),
    V2: openclip_part("cond_stage_model.model.", UNUSED_LAYERS, with_projection=False),
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def file_parts(name: str) -> Mapping[str, FilePart]:
    """Where single files hold what."""
    return {"unet": unet_part(), "text_encoder": TEXT_PARTS[name], "vae": vae_part(LATENT_SCALE)}


@dataclass(frozen=True)
class StableDiffusion:
    """Stable Diffusion 1.x or 2.x; see `library.families.base.Family` for what the names mean."""

    source: ModelSource | None = None  # None: for modules that were made and not loaded
    objective: Objective = "epsilon"
    latent_scale: float = LATENT_SCALE
    name: str = V1
    notes: tuple[str, ...] = ()
    channels: int = 4
    vae_scale: int = 8
    bucket_step: int = 64
    latent_cache_suffix: str = "_sd"
    adapter_prefixes: tuple[str, ...] = ("lora_unet", "lora_te")

    @property
    def default_resolution(self) -> int:
        return 768 if (self.name, self.objective) == (V2, "v") else 512

    @property
    def base_model_version(self) -> str:
        return f"{self.name}_v" if self.objective == "v" else self.name

    @property
    def modelspec_architecture(self) -> str:
        if self.name == V1:
            return "stable-diffusion-v1"
        return "stable-diffusion-v2-768-v" if self.objective == "v" else "stable-diffusion-v2-512"

    @property
    def source_layout(self) -> Layout:
        return self.source.layout if self.source else "safetensors"

    def parameter_counts(self) -> dict[str, int]:
        return {name: part.parameter_count for name, part in self.source.parts.items()} if self.source else {}

    def load(self, options: ModelOptions, dtype: torch.dtype, device: torch.device | str) -> Parts:
        from library.families.clip import build_text_encoder
        from library.families.loading import load_module, load_unet, load_vae

        if self.source is None:
            raise ValueError("this family was made without a checkpoint")
        sources = self.source.parts_read(mapped=not options.disable_mmap_load_safetensors)
        unet = load_unet(sources["unet"], self.default_resolution // self.vae_scale, dtype, device)
        text_encoder = load_module(sources["text_encoder"], build_text_encoder, dtype, device)
        vae = load_vae(sources["vae"], dtype, device, options.no_half_vae)
        return Parts(unet, [text_encoder], [self._tokenizer(self.source, options.tokenizer_cache_dir)], vae)

    def _tokenizer(self, source: ModelSource, cache: str | None) -> CLIPTokenizer:
        if "tokenizer" in source.tokenizer_folders:
            return load_tokenizer(source.tokenizer_folders["tokenizer"])
        special_tokens = {"pad_token": EXCLAMATION_MARK} if self.name == V2 else {}
        return load_tokenizer(cached_vocabulary(TOKENIZER_IDS[self.name], cache), **special_tokens)

    def encode_text(self, parts: Parts, captions: list[str], settings: TextSettings) -> Conditioning:
        from library.families.clip import encode_captions

        return Conditioning(encode_captions(parts.text_encoders[0], parts.tokenizers[0], captions, settings))

    def text_layout(self, parts: Parts) -> TextLayout:
        encoder: Any = parts.text_encoders[0]
        return TextLayout("_sd_te", ("hidden_state",), (encoder.text_model.config.hidden_size,))

    def encode_images(self, parts: Parts, images: Tensor) -> Posterior:
        from library.families.autoencoder import encode_images

        return encode_images(parts.vae, images)

    def decode_latents(self, parts: Parts, latents: Tensor) -> Tensor:
        from library.families.autoencoder import decode_latents

        return decode_latents(parts.vae, latents / self.latent_scale)

    def predict(
        self, parts: Parts, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, batch: Batch | None = None
    ) -> Tensor:
        dtype = next(parts.unet.parameters()).dtype
        return parts.unet(noisy_latents.to(dtype), timesteps, encoder_hidden_states=conditioning.hidden_states.to(dtype)).sample


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
        from library.families.saving_openclip import invented_tensors

        modules = {"unet": parts.unet, "text_encoder": parts.text_encoders[0], "vae": parts.vae}
        model = Model(modules, file_parts(self.name), self.source, trained)
        if self.name == V2:
            model = replace(model, invented=invented_tensors)
        schedule = schedule_facts(self.objective, trained.zero_terminal_snr)
        facts = FolderFacts(INDEX, SCHEDULER, schedule, {"tokenizer": EXCLAMATION_MARK if self.name == V2 else None})
        save_model(model, facts, path, layout, dtype, metadata)


def from_folder(folder: Path, name: str, options: ModelOptions) -> StableDiffusion:
    """The family for a model in Diffusers layout; `name` tells 1.x from 2.x."""
    return _bound(read_folder(folder, file_parts(name), options.vae), name, options)


def from_file(path: Path, shapes: Shapes, name: str, options: ModelOptions) -> StableDiffusion:
    """The family for a single file with these tensors; `name` tells 1.x from 2.x."""
    return _bound(read_file(path, shapes, file_parts(name), TITLES[name], options.vae), name, options)


def _bound(source: ModelSource, name: str, options: ModelOptions) -> StableDiffusion:
    layers = source.parts["text_encoder"].config.get("num_hidden_layers", 12)
    if options.clip_skip is not None and options.clip_skip > layers:
        raise UserError(f"clip_skip = {options.clip_skip}: the text encoder of {source.path} has {layers} layers")
    objective = objective_of(source, options)
    notes = []
    if name == V2 and options.clip_skip is not None:
        notes.append("clip_skip: SD 2.x models leave out the last layer anyway")
    if name == V2 and objective == "epsilon" and source.prediction_type is None:
        notes.append(f"{source.path} does not say what it predicts: taken to be the noise; a 768-v model needs v_parameterization")
    scale = source.parts["vae"].config.get("scaling_factor", LATENT_SCALE)
    return StableDiffusion(source, objective, scale, name, tuple(notes))
