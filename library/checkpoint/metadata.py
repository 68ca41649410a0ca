"""The metadata of trained files: how they were made (ss_*) and what they are (modelspec.*). Values are text."""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from library.checkpoint.dataset_facts import DatasetFacts
from library.checkpoint.dataset_metadata import dataset_file_metadata, single_dataset_metadata
from library.checkpoint.hashes import ModelHashes, model_name
from library.checkpoint.modelspec import modelspec
from library.checkpoint.naming import RunLength, SavePoint

if TYPE_CHECKING:
    from library.config.settings import Settings

# Fields that hold a setting as it was given, by topic of `Settings`; a field of another name than its option stands as a pair.
SETTINGS: dict[str, tuple[str | tuple[str, str], ...]] = {
    "saving": ("output_name",),
    "optimizer": ("learning_rate", "unet_lr", "max_grad_norm"),
    "training": ("gradient_checkpointing", "gradient_accumulation_steps", "mixed_precision", "full_fp16"),
    "memory": ("lowram", "fp8_base", "fp8_base_unet"),
    "scheduler": ("lr_warmup_steps", "lr_scheduler"),
    "network": ("network_module", "network_dim", "network_alpha", "network_dropout", "training_comment", "scale_weight_norms"),
    "model": ("clip_skip", "max_token_length"),
    "noise": (
        "noise_offset", "noise_offset_random_strength", "multires_noise_iterations", "multires_noise_discount",
        "adaptive_noise_scale", "zero_terminal_snr", "ip_noise_gamma", "ip_noise_gamma_random_strength",
    ),
    "data": (
        "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "prior_loss_weight",
        "resize_interpolation", "validation_seed", "validation_split",
    ),
    "validation": ("max_validation_steps", "validate_every_n_epochs", "validate_every_n_steps"),
    "loss": (
        "min_snr_gamma", ("debiased_estimation", "debiased_estimation_loss"),
        "loss_type", "huber_schedule", "huber_scale", "huber_c",
    ),
}  # fmt: skip
# Readers expect these fields; what they tell of is not built, so that they always say that it was off.
CONSTANT = {
    "ss_sd_scripts_commit_hash": "(unknown)",
}
# What other programs need in order to load the file: all that `no_metadata` leaves.
MINIMUM = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args")


@dataclass(frozen=True)
class TrainingFacts:
    """What the metadata tells of a run besides its settings."""

    settings: Settings
    session_id: int  # the same in all files of one run
    started_at: float  # seconds since 1970
    seed: int  # given or drawn
    length: RunLength
    batches_per_epoch: int  # per process
    total_batch_size: int  # over processes and accumulation
    datasets: tuple[DatasetFacts, ...]
    optimizer_description: str  # module.Class(argument=value,...)
    base_model_version: str  # "sd_v1", ...
    architecture: str  # as modelspec names the base: "stable-diffusion-v1", ...
    artefact: str | None  # what is saved: "lora", "textual-inversion"; None: a whole model
    prediction_type: str  # "epsilon" or "v"
    default_resolution: tuple[int, int]  # (width, height) of the base model
    held_out_images: int = 0
    model_hashes: ModelHashes | None = None  # of `model_hashes`
    vae_hashes: ModelHashes | None = None


def file_metadata(
    facts: TrainingFacts, point: SavePoint, saved_at: float, validation_loss: float | None = None
) -> dict[str, str]:
    """All metadata of a file that is saved at this point, at this time (seconds since 1970). `validation_loss`: of the best weights."""
    fields = training_metadata(facts, point, saved_at) if facts.artefact == "lora" else {}
    if validation_loss is not None:
        fields |= {"ss_steps": str(point.step), "ss_validation_loss": str(validation_loss)}
    if facts.settings.network.no_metadata:
        fields = minimal(fields)
    return {**fields, **modelspec(facts, saved_at)}


def training_metadata(facts: TrainingFacts, point: SavePoint, saved_at: float) -> dict[str, str]:
    """Every ss_* field."""
    fields = {
        **_counted(facts),
        **_given(facts.settings),
        **CONSTANT,
        **_named_models(facts),
        "ss_training_finished_at": saved_at,
        "ss_steps": point.step,
        "ss_epoch": facts.length.finished_epochs(point),
    }
    if facts.settings.data.dataset_config is not None:
        fields |= dataset_file_metadata(facts.datasets)
    else:
        fields |= single_dataset_metadata(facts.datasets[0], facts.settings.data, facts.total_batch_size)
    return {name: str(value) for name, value in fields.items()}


def minimal(fields: dict[str, str]) -> dict[str, str]:
    """What stays under `no_metadata`."""
    return {name: fields[name] for name in MINIMUM if name in fields}


def _counted(facts: TrainingFacts) -> dict[str, Any]:
    return {
        "ss_session_id": facts.session_id,
        "ss_training_started_at": facts.started_at,
        "ss_seed": facts.seed,
        "ss_num_train_images": sum(dataset.num_train_images for dataset in facts.datasets),
        "ss_num_reg_images": sum(dataset.num_reg_images for dataset in facts.datasets),
        "ss_num_validation_images": facts.held_out_images,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_num_epochs": facts.length.epochs,
        "ss_max_train_steps": facts.length.last_step,
        "ss_optimizer": facts.optimizer_description,
        "ss_base_model_version": facts.base_model_version,
        "ss_v2": facts.base_model_version.startswith("sd_v2"),  # the checkpoint decides, whether or not `v2` says so too
    }


def _given(settings: Settings) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for topic, names in SETTINGS.items():
        for name in names:
            field, option = (name, name) if isinstance(name, str) else name
            fields[f"ss_{field}"] = getattr(getattr(settings, topic), option)
    text_encoder_lr, face_crop = settings.optimizer.text_encoder_lr, settings.data.face_crop_aug_range
    fields["ss_text_encoder_lr"] = None if text_encoder_lr is None else list(text_encoder_lr)
    fields["ss_face_crop_aug_range"] = None if face_crop is None else ",".join(map(str, face_crop))
    fields["ss_cache_latents"] = settings.data.cache_latents or settings.data.cache_latents_to_disk
    if settings.network.network_args:
        fields["ss_network_args"] = json.dumps(_network_arguments(settings))
    return fields


def _network_arguments(settings: Settings) -> dict[str, Any]:
    """As the network module receives them: --network_dropout is among them, unless the shape comes from a file."""
    network = settings.network
    arguments: dict[str, Any] = dict(argument.split("=", 1) for argument in network.network_args or ())
    return arguments if network.dim_from_weights else {**arguments, "dropout": arguments.get("dropout", network.network_dropout)}


def _named_models(facts: TrainingFacts) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    models = (
        ("ss_sd_model_name", "sd_model", facts.settings.model.pretrained_model_name_or_path, facts.model_hashes),
        ("ss_vae_name", "vae", facts.settings.model.vae, facts.vae_hashes),
    )
    for name_field, stem, name_or_path, hashes in models:
        if name_or_path is None:
            continue
        fields[name_field] = model_name(name_or_path)
        if hashes is not None:
            fields |= {f"ss_{stem}_hash": hashes.short, f"ss_new_{stem}_hash": hashes.full}
    return fields
