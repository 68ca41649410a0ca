"""Datasets as a person describes them: in a dataset file, or by the names of folders."""

from __future__ import annotations

import dataclasses

from library.config.datasets.file import datasets_from_file
from library.config.datasets.folders import datasets_from_folders
from library.config.datasets.settings import CaptionSettings, DatasetSettings, SubsetSettings
from library.config.settings import Settings

__all__ = ["CaptionSettings", "DatasetSettings", "SubsetSettings", "load_dataset_settings"]


def load_dataset_settings(settings: Settings) -> list[DatasetSettings]:
    """The datasets of a run; UserError tells all mistakes at once, `notes` what else the person should know."""
    options, where = settings.data, settings.where
    if options.dataset_config is None:
        return datasets_from_folders(options, where)
    datasets = datasets_from_file(options.dataset_config, options, where)
    ignored = [name for name in ("train_data_dir", "reg_data_dir") if getattr(options, name)]
    notes = tuple(f"{where(name)} is not used: {options.dataset_config} says where the pictures are" for name in ignored)
    return [dataclasses.replace(datasets[0], notes=notes + datasets[0].notes), *datasets[1:]]
