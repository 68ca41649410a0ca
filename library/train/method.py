"""What a script trains: its method, and what can be checked of it before a model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from library.checkpoint.naming import Kind
from library.config.datasets import DatasetSettings
from library.config.load import Settings
from library.config.options import SavingOptions
from library.config.scripts import TRAIN_DB
from library.data.records import PreparedDataset
from library.errors import UserError
from library.families.base import Family
from library.families.source import Layout
from library.methods.lycoris import check_switch
from library.methods.rates import ModelRates, model_rates
from library.train.preservation import wants_base

if TYPE_CHECKING:
    import torch

    from library.methods.base import Method
    from library.train.runtime import Runtime


def make_method(settings: Settings, family: Family, seed: int, runtime: Runtime) -> Method:
    """The method of the settings' script."""
    from library.methods.adapter import AdapterMethod
    from library.methods.embedding import EmbeddingMethod
    from library.methods.full import FullMethod
    from library.methods.pivotal import PivotalMethod

    checkpointing = settings.training.gradient_checkpointing
    if settings.script.method == "embedding":
        rate, per_layer = settings.optimizer.learning_rate, settings.script.per_layer
        return EmbeddingMethod(settings.embedding, rate, checkpointing, seed, per_layer)
    if settings.script.method == "full":
        rates, layout = _model_rates(settings, family), model_layout(settings.saving, family)
        ends_in_noise = settings.noise.zero_terminal_snr
        return FullMethod(family, rates, layout, runtime.frozen_dtype, settings.model.no_half_vae, checkpointing, ends_in_noise)
    network = AdapterMethod(settings.network, settings.optimizer, checkpointing, seed, runtime.trained_dtype)
    if "words" not in trained_files(settings):
        return network
    rate = settings.optimizer.learning_rate if settings.embedding.token_lr is None else settings.embedding.token_lr
    return PivotalMethod(network, EmbeddingMethod(settings.embedding, rate, checkpointing, seed))


def trained_files(settings: Settings) -> tuple[Kind, ...]:
    """The files that trained weights go to: with a word beside a network there are two."""
    return ("weights", "words") if settings.script.method == "adapter" and settings.embedding.token_string else ("weights",)


def load_dtype(settings: Settings, runtime: Runtime) -> torch.dtype:
    """Of the model's parts when they are loaded. Where they are trained they must not lose anything; the others are cast later."""
    return runtime.trained_dtype if settings.script.method == "full" else runtime.frozen_dtype


def settings_for_family(settings: Settings, family: Family, datasets: Sequence[DatasetSettings]) -> Settings:
    """Of the method's options, what the kind of the model decides; the settings with the form in which a whole model is saved."""
    script, name = settings.script, settings.model.pretrained_model_name_or_path
    if script.family not in (None, family.name):
        raise UserError(f"{name}: this is a model of the family {family.name}, {script.name} takes {script.family}: use {script.general}")
    if script.method != "full":
        return settings
    multiplied = [dataset.where for dataset in datasets if dataset.network_multiplier != 1.0]
    if multiplied:
        raise UserError(*(f"{where} network_multiplier: {script.name} trains no network; delete it" for where in multiplied))
    _model_rates(settings, family)
    saving = dataclasses.replace(settings.saving, save_model_as=model_layout(settings.saving, family))
    return dataclasses.replace(settings, saving=saving)


def _model_rates(settings: Settings, family: Family) -> ModelRates:
    encoders = len(family.adapter_prefixes) - 1
    return model_rates(settings.full, settings.optimizer, family.name, encoders, always_text=settings.script == TRAIN_DB)


def model_layout(saving: SavingOptions, family: Family) -> Layout:
    """The form of whole models: as asked for, else that of the model they are trained from."""
    layout: Any = saving.save_model_as or family.source_layout
    safe: dict[str, Layout] = {"ckpt": "safetensors", "diffusers": "diffusers_safetensors"}
    return safe.get(layout, layout) if saving.use_safetensors else layout


def check_method(settings: Settings, family: Family, prepared: Sequence[PreparedDataset]) -> list[str]:
    """Of the method's own options, all that needs no weights. Returns what is worth saying."""
    if wants_base(prepared) and settings.script.method == "adapter":
        check_switch(settings.network)
    if settings.embedding.token_string:
        from library.methods.embedding_checks import check_embedding  # imports torch, which takes seconds

        return check_embedding(settings.embedding, settings.script, len(family.adapter_prefixes) - 1, prepared)
    return []
