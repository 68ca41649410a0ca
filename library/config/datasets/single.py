"""Datasets without a dataset file that are one subset: a metadata file, or a folder of pictures with its folder of masks."""

from __future__ import annotations

from library.config.datasets.build import dataset_settings
from library.config.datasets.keys import DESCRIBED, MASKED
from library.config.datasets.layers import Layers
from library.config.datasets.settings import DatasetSettings
from library.config.datasets.subsets import subset_settings
from library.config.settings import Settings
from library.errors import UserError


def dataset_from_metadata(settings: Settings) -> list[DatasetSettings]:
    """The pictures that --in_json names; relative names begin in --train_data_dir."""
    table = {"metadata_file": settings.data.in_json, "image_dir": settings.data.train_data_dir}
    return _dataset(settings, DESCRIBED, table, settings.where("in_json"))


def dataset_with_masks(settings: Settings) -> list[DatasetSettings]:
    """The pictures that lie in --train_data_dir itself, with the masks of --conditioning_data_dir."""
    if not settings.data.train_data_dir:
        place = settings.where("conditioning_data_dir")
        raise UserError(f"{place}: there are no pictures to these masks; give --train_data_dir, the folder of the pictures")
    table = {"image_dir": settings.data.train_data_dir, "conditioning_data_dir": settings.data.conditioning_data_dir}
    return _dataset(settings, MASKED, table, settings.where("conditioning_data_dir"))


def _dataset(settings: Settings, kind: str, table: dict[str, str | None], where: str) -> list[DatasetSettings]:
    notes: list[str] = []
    mistakes: list[str] = []
    layers = Layers((), settings)
    if settings.data.reg_data_dir:
        notes.append(f"{settings.where('reg_data_dir')} is not used: {kind} have no regularisation pictures")
    subset = subset_settings(layers.below(where, {name: value for name, value in table.items() if value}), kind, where)
    dataset = dataset_settings(layers, [subset], where, notes, mistakes)
    if mistakes or dataset is None:
        raise UserError(*mistakes)
    return [dataset]
