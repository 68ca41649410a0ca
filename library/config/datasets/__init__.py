"""Datasets as a person describes them: in a dataset file, by a metadata file, or by the names of folders."""

from __future__ import annotations

import dataclasses

from library.config.datasets.class_images import class_image_mistakes
from library.config.datasets.file import datasets_from_file
from library.config.datasets.folders import datasets_from_folders
from library.config.datasets.preservation import preservation_mistakes
from library.config.datasets.settings import CaptionSettings, DatasetSettings, SubsetSettings
from library.config.datasets.single import dataset_from_metadata, dataset_with_masks
from library.config.settings import Settings
from library.errors import UserError

__all__ = ["CaptionSettings", "DatasetSettings", "SubsetSettings", "load_dataset_settings"]


def load_dataset_settings(settings: Settings) -> list[DatasetSettings]:
    """The datasets of a run; UserError tells all mistakes at once, `notes` what else the person should know."""
    options = settings.data
    if options.dataset_config:
        datasets = _with_notes(datasets_from_file(options.dataset_config, settings), settings)
    elif options.in_json:
        datasets = dataset_from_metadata(settings)
    elif options.conditioning_data_dir:
        datasets = dataset_with_masks(settings)
    else:
        datasets = datasets_from_folders(settings)
    _check_that_masks_are_there(datasets, settings)
    if mistakes := [*class_image_mistakes(datasets, settings), *preservation_mistakes(datasets, settings)]:
        raise UserError(*mistakes)
    return [dataclasses.replace(dataset, paired_prior=options.paired_prior) for dataset in datasets]


def _with_notes(datasets: list[DatasetSettings], settings: Settings) -> list[DatasetSettings]:
    """With a note on each option that says where pictures are although the dataset file does."""
    options = settings.data
    ignored = [name for name in ("train_data_dir", "reg_data_dir", "in_json", "conditioning_data_dir") if getattr(options, name)]
    notes = tuple(f"{settings.where(name)} is not used: {options.dataset_config} says where the pictures are" for name in ignored)
    return [dataclasses.replace(datasets[0], notes=notes + datasets[0].notes), *datasets[1:]]


def _check_that_masks_are_there(datasets: list[DatasetSettings], settings: Settings) -> None:
    subsets = [subset for dataset in datasets for subset in dataset.subsets]
    if settings.data.masked_loss and not any(subset.conditioning_data_dir or subset.alpha_mask for subset in subsets):
        raise UserError(
            f"{settings.where('masked_loss')}: no picture has a mask; name a folder of masks (conditioning_data_dir), "
            "or use the pictures' transparency (alpha_mask)"
        )
