"""Datasets without a dataset file: sub-folders named like "20_sls frog" give repeats and class tokens."""

from __future__ import annotations

from pathlib import Path

from library.config.datasets.build import dataset_settings
from library.config.datasets.class_images import class_folder_name
from library.config.datasets.keys import CAPTIONED
from library.config.datasets.layers import Layers
from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.datasets.subsets import folder_mistake, subset_settings
from library.config.settings import Settings
from library.errors import UserError

_CONVENTION = 'sub-folders named like "20_sls frog": the number of times that each picture is used in an epoch, "_", the caption'


def datasets_from_folders(settings: Settings) -> list[DatasetSettings]:
    """One dataset: the sub-folders of train_data_dir, then those of reg_data_dir, each in the order of their names."""
    options = settings.data
    if not options.train_data_dir:
        found = "reg_data_dir alone holds nothing to train on" if options.reg_data_dir else "there are no pictures to train on"
        raise UserError(f"{found}; give --train_data_dir FOLDER, with {_CONVENTION}; or give --dataset_config FILE.toml")
    notes: list[str] = []
    mistakes: list[str] = []
    layers = Layers((), settings)
    subsets = []
    for name in ("train_data_dir", "reg_data_dir"):
        if folder := getattr(options, name):
            subsets += _subsets_in(Path(folder), layers, name, notes, mistakes)
    dataset = dataset_settings(layers, subsets, settings.where("train_data_dir"), notes, mistakes)
    if mistakes or dataset is None:
        raise UserError(*mistakes)
    return [dataset]


def _subsets_in(folder: Path, layers: Layers, option: str, notes: list[str], mistakes: list[str]) -> list[SubsetSettings]:
    """The sub-folders of one folder as subsets; those whose name says nothing are noted and left out."""
    place = layers.settings.where(option)
    draws = option == "reg_data_dir" and layers.settings.data.num_class_images > 0
    if problem := folder_mistake(folder, will_be_made=draws):
        mistakes.append(f"{place}: {problem}")
        return []
    try:
        children = sorted(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        mistakes.append(f"{place}: {folder} cannot be read ({error.strerror})")
        return []
    if draws and all(child.name.startswith(".") for child in children):
        return _subset_to_draw(folder, layers, place, mistakes)
    subsets = []
    for child in children:
        repeats, words = _read_name(child.name)
        if not child.is_dir():
            continue
        if repeats is None or repeats < 1:
            notes.append(f'{place}: {child} is left out, its name does not begin with a number above 0 and "_"')
            continue
        subsets.append(_subset(child, repeats, words, option == "reg_data_dir", layers))
    if not subsets:
        loose = " (files that lie in it directly are not read)" if any(child.is_file() for child in children) else ""
        itself = f'; it is itself named like one, so give "{folder.parent}"' if (_read_name(folder.name)[0] or 0) > 0 else ""
        mistakes.append(f"{place}: {folder} needs {_CONVENTION}; it has none{loose}{itself}")
    return subsets


def _subset_to_draw(folder: Path, layers: Layers, place: str, mistakes: list[str]) -> list[SubsetSettings]:
    """The folder that is made in an empty or missing one, for pictures of the class prompt."""
    prompt = layers.settings.data.class_prompt
    if not prompt:
        mistakes.append(f'{place}: {folder} holds no folders, and nothing says what to draw; give --class_prompt "a frog"')
        return []
    return [_subset(folder / class_folder_name(prompt), 1, prompt, True, layers)]


def _subset(folder: Path, repeats: int, words: str, is_reg: bool, layers: Layers) -> SubsetSettings:
    table = {"image_dir": str(folder), "num_repeats": repeats, "class_tokens": words, "is_reg": is_reg}
    return subset_settings(layers.below(str(folder), table), CAPTIONED, str(folder))


def _read_name(name: str) -> tuple[int | None, str]:
    """`20_sls frog` means 20 repeats of "sls frog"; `5` means 5 repeats of pictures without words."""
    number, _, words = name.partition("_")
    try:
        return int(number), words
    except ValueError:
        return None, ""
