"""What the caching tools are going to do: for which images, with which model; checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from library.config.check import check_settings
from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.load import Settings
from library.config.scripts import CACHE_LATENTS
from library.data.cache import check_cacheable
from library.data.records import PreparedDataset
from library.data.report import DataReport, data_report
from library.data.sources import prepare_datasets
from library.data.text_cache import check_captions_cacheable
from library.errors import UserError
from library.families.base import Family
from library.families.detect import identify
from library.train.plan import check_bucket_steps, check_the_network, collect


@dataclass(frozen=True)
class CachingPlan:
    """Everything that is cached is cached on disk."""

    settings: Settings
    family: Family
    prepared: list[PreparedDataset]
    report: DataReport
    notes: list[str]

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        model = self.settings.model.pretrained_model_name_or_path
        what = "latents" if self.settings.data.cache_latents else "text encoder outputs"
        return [
            *self.report.lines(),
            *(f"note: {note}" for note in self.notes),
            f"base model: {model} ({self.family.name})",
            f"{what} are cached in files beside the images",
        ]


def make_caching_plan(settings: Settings) -> CachingPlan:
    """Check all that needs no model. UserError tells every mistake."""
    wanted = _wanted(settings)
    written = collect(notes=lambda: check_settings(wanted), datasets=lambda: load_dataset_settings(settings))
    found: dict[str, Any] = {}
    collect(
        found,
        family=lambda: _identify(settings),
        prepared=lambda: _prepare(wanted, written["datasets"], found.get("family")),
        network=lambda: check_the_network(settings, found.get("family")) if settings.network.base_weights else None,
    )
    prepared: list[PreparedDataset] = found["prepared"]
    report, own = data_report(prepared), _nothing_else(wanted)
    if own.data.cache_latents:
        check_cacheable(prepared)
        prepared = [_drawn(dataset) for dataset in prepared]
    else:
        check_captions_cacheable(prepared, own.data.caption_variants)
    notes = [*settings.notes, *written["notes"], *found["family"].notes]
    return CachingPlan(own, found["family"], prepared, report, notes)


def _wanted(settings: Settings) -> Settings:
    """What the script is there for need not be asked for."""
    data = replace(settings.data, skip_cache_check=settings.data.skip_cache_check or settings.data.skip_existing)
    if settings.script == CACHE_LATENTS:
        return replace(settings, data=replace(data, cache_latents=True, cache_latents_to_disk=True))
    return replace(settings, data=replace(data, cache_text_encoder_outputs=True, cache_text_encoder_outputs_to_disk=True))


def _nothing_else(settings: Settings) -> Settings:
    """The other kind of cache is another tool's, even if the training asks for it."""
    if settings.script == CACHE_LATENTS:
        return replace(settings, data=replace(settings.data, cache_text_encoder_outputs=False))
    return replace(settings, data=replace(settings.data, cache_latents=False))


def _drawn(dataset: PreparedDataset) -> PreparedDataset:
    """Without the class pictures that a training is still to draw."""
    missing = {str(wanted.path(number)) for wanted in dataset.class_images for number in wanted.missing}
    return replace(dataset, records=[record for record in dataset.records if record.path not in missing])


def _identify(settings: Settings) -> Family:
    family = identify(settings.model)
    if settings.model.sdxl and not family.base_model_version.startswith("sdxl"):
        name = settings.model.pretrained_model_name_or_path
        raise UserError(f"sdxl: {name} is {family.name}; leave out sdxl, the model itself says what it is")
    return family


def _prepare(settings: Settings, datasets: list[DatasetSettings], family: Family | None) -> list[PreparedDataset]:
    data = settings.data
    if family is not None:
        check_bucket_steps(datasets, family)
    return prepare_datasets(datasets, data.on_bad_image, family.latent_cache_suffix if family and data.cache_latents else None)
