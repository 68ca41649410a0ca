"""Dataset files: [general] flows into [[datasets]], that into [[datasets.subsets]]; flags stand in where all are silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from library.config.datasets.build import dataset_settings
from library.config.datasets.keys import DATASET, GENERAL, KEYS, MASKED, SUBSET, kind_of_subsets
from library.config.datasets.layers import Layers
from library.config.datasets.schema import check_table
from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.datasets.subsets import subset_settings
from library.config.settings import Settings
from library.config.spelling import did_you_mean
from library.config.text_files import read_table_file
from library.errors import UserError


def datasets_from_file(path: Path, settings: Settings) -> list[DatasetSettings]:
    """Every dataset of the file; UserError tells all mistakes at once."""
    content = read_table_file(path, "dataset file")
    mistakes = [f"{path} {name}: {_misplaced(name)}" for name in content if name not in ("general", "datasets")]
    place = f"{path} {GENERAL}"
    layers = Layers(((place, check_table(content.get("general", {}), GENERAL, place, mistakes)),), settings)
    tables = _array(content, "datasets", DATASET, str(path), mistakes)
    datasets = [_dataset(table, f"{path} {DATASET} {i}", layers, mistakes) for i, table in enumerate(tables, start=1)]
    if mistakes:
        raise UserError(*mistakes)
    return [dataset for dataset in datasets if dataset]


def _misplaced(name: str) -> str:
    if name == "subsets":
        return f"a subset belongs to a dataset; write {SUBSET} below a {DATASET}"
    if name in KEYS:
        return f"a key stands in a table; write this one under {' or '.join(KEYS[name].levels)}"
    return f"unknown name; a dataset file holds {GENERAL} and {DATASET}{did_you_mean(name, ('general', 'datasets'))}"


def _array(parent: dict[str, Any], name: str, header: str, where: str, mistakes: list[str]) -> list[Any]:
    """The array of tables `name`, which may not be empty."""
    tables = parent.get(name)
    if isinstance(tables, list) and tables:
        return tables
    problem = f"{name} must be a list of tables; write {header} with two brackets" if tables else f"there is no {header}"
    mistakes.append(f"{where}: {problem}")
    return []


def _dataset(table: Any, where: str, general: Layers, mistakes: list[str]) -> DatasetSettings | None:
    if not isinstance(table, dict):
        mistakes.append(f"{where}: expected a table, found something else")
        return None
    own = {name: value for name, value in table.items() if name != "subsets"}
    subset_tables = _array(table, "subsets", SUBSET, where, mistakes)
    kind = kind_of_subsets(subset_tables)
    layers = general.below(where, check_table(own, DATASET, where, mistakes, kind))
    if kind == MASKED and not layers.settings.data.masked_loss:
        mistakes.append(f"{where}: conditioning_data_dir is used with masked_loss only; give --masked_loss, or remove this key")
    subsets = [_subset(item, f"{where} {SUBSET} {i}", layers, kind, mistakes) for i, item in enumerate(subset_tables, start=1)]
    return dataset_settings(layers, [subset for subset in subsets if subset], where, [], mistakes)


def _subset(table: Any, where: str, dataset: Layers, kind: str, mistakes: list[str]) -> SubsetSettings | None:
    layers = dataset.below(where, check_table(table, SUBSET, where, mistakes, kind))
    has_source = layers.value("image_dir") or layers.value("metadata_file")
    return subset_settings(layers, kind, where) if has_source else None
