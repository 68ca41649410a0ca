"""Makes the settings of subsets out of layers, and checks what they name: folders, metadata files, ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from library.config.datasets.keys import KEYS
from library.config.datasets.layers import Layers
from library.config.datasets.settings import CaptionSettings, SubsetSettings
from library.config.text_files import similar_file

_METADATA_SUFFIXES = (".json", ".jsonl")
_PATHS = ("image_dir", "metadata_file", "conditioning_data_dir")


def subset_settings(layers: Layers, kind: str, where: str) -> SubsetSettings:
    """The settings of one subset as its layers say; keys that its kind has no use for keep their defaults."""

    def value(name: str) -> Any:
        return layers.value(name) if kind in KEYS[name].kinds else KEYS[name].option.default

    values = {name: value(name) for name in _keys_of(SubsetSettings)}
    values |= {name: Path(values[name]) if values[name] else None for name in _PATHS}
    values["custom_attributes"] = values["custom_attributes"] or {}
    values["caption_extension"] = "." + values["caption_extension"].removeprefix(".")
    if values["is_reg"] and "validation_split" not in layers.tables[0][1]:
        values["validation_split"] = 0.0  # what the tables above say is meant for the other subsets
    values |= _class_values(values, layers)
    caption = CaptionSettings(**{name: layers.value(name) for name in _keys_of(CaptionSettings)})
    given = layers.is_given("caption_extension")
    return SubsetSettings(**values, caption_extension_given=given, caption=caption, where=where)


def _class_values(values: dict[str, Any], layers: Layers) -> dict[str, Any]:
    """What to draw, where pictures are drawn; what to keep, under prior_prediction. Else the flags are not meant for pictures that
    are trained on, and the keys may be misplaced."""
    if not values["is_reg"]:
        own = layers.tables[0][1]
        prompt = values["class_prompt"] if layers.settings.data.prior_prediction else own.get("class_prompt")
        return {"num_class_images": own.get("num_class_images", 0), "class_prompt": prompt or None}
    prompt = values["class_prompt"] or (values["class_tokens"] if values["num_class_images"] else None) or None
    return {"class_prompt": prompt, "class_tokens": prompt or values["class_tokens"]}


def usable_subsets(subsets: list[SubsetSettings], notes: list[str], mistakes: list[str]) -> tuple[SubsetSettings, ...]:
    """The subsets without those that are repeated or used zero times."""
    usable: dict[tuple[Path | None, ...], SubsetSettings] = {}
    for subset in subsets:
        key, source = _identity(subset)
        if subset.num_repeats < 1:
            notes.append(f"{subset.where} num_repeats: {subset.num_repeats} leaves this subset out")
        elif key in usable:
            path = getattr(subset, source)
            notes.append(f"{subset.where} {source}: {path} is left out here, {usable[key].where} reads it already")
        else:
            usable[key] = subset
            mistakes += _subset_mistakes(subset)
    return tuple(usable.values())


def folder_mistake(folder: Path, will_be_made: bool = False) -> str | None:
    """What is wrong with a path that has to be a folder, or may be missing because it will be made; what may be the reason."""
    try:
        if folder.is_dir():
            return None
        if folder.is_file():
            return f"{folder} is a file; name the folder that holds it"
        if will_be_made and not folder.is_symlink() and str(folder).isprintable():
            return None
    except OSError as error:  # a name that the system refuses, or a place that may not be looked into
        return f"'{folder}' cannot be read ({error.strerror})"
    return _nothing_there(folder, "folder")


def _file_mistake(file: Path) -> str | None:
    try:
        if not file.exists():
            return _nothing_there(file, "file") + similar_file(file)
        if file.is_dir():
            return f"{file} is a folder; name the file"
    except OSError as error:
        return f"'{file}' cannot be read ({error.strerror})"
    if file.suffix.lower() not in _METADATA_SUFFIXES:
        return f'{file} must end in .json or .jsonl, this ends in "{file.suffix}"'
    return None


def _nothing_there(path: Path, what: str) -> str:
    if any(character in str(path) for character in "\n\t\r\b\f"):
        shown = str(path).encode("unicode_escape").decode()
        return f"there is no {what} '{shown}'; \\n, \\t, ... in double quotes are no backslashes, use single quotes: 'C:\\{what}'"
    hint = "" if path.is_absolute() else f" (relative paths begin where the command is run, in {Path.cwd()})"
    return f"there is no {what} '{path}'{hint}"


def _keys_of(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)} & KEYS.keys()


def _identity(subset: SubsetSettings) -> tuple[tuple[Path | None, ...], str]:
    """What makes two subsets the same, and the key that says it."""
    if subset.metadata_file:
        return (subset.metadata_file.resolve(),), "metadata_file"
    masks = subset.conditioning_data_dir
    folder = subset.image_dir.resolve() if subset.image_dir else None
    return (folder, masks.resolve() if masks else None), "image_dir"


def _subset_mistakes(subset: SubsetSettings) -> list[str]:
    return [f"{subset.where} {mistake}" for mistake in (*_path_mistakes(subset), *_value_mistakes(subset))]


def _path_mistakes(subset: SubsetSettings) -> Iterator[str]:
    for name in ("image_dir", "conditioning_data_dir"):
        folder = getattr(subset, name)
        will_be_made = name == "image_dir" and subset.is_reg and subset.num_class_images > 0
        if folder and (problem := folder_mistake(folder, will_be_made)):
            yield f"{name}: {problem}"
    if subset.metadata_file and (problem := _file_mistake(subset.metadata_file)):
        yield f"metadata_file: {problem}"
    masks = subset.conditioning_data_dir
    if masks and subset.image_dir and masks.resolve() == subset.image_dir.resolve():
        yield "conditioning_data_dir: this is the folder of the pictures; name a folder that holds a mask for each of them"


def _value_mistakes(subset: SubsetSettings) -> Iterator[str]:
    if subset.caption_extension == ".":
        yield 'caption_extension: this is empty; write ".txt", for example'
    if subset.is_reg and subset.validation_split:
        yield "validation_split: regularisation pictures (is_reg) are not held out; remove one of them"
    yield from _class_image_mistakes(subset)
    crop = subset.face_crop_aug_range
    if crop and not 0 < crop[0] <= crop[1]:
        yield f"face_crop_aug_range: {crop[0]}, {crop[1]} is no range; write [2.0, 4.0], for example"


def _class_image_mistakes(subset: SubsetSettings) -> Iterator[str]:
    if not subset.is_reg:
        if subset.num_class_images:
            yield (
                "num_class_images: only regularisation pictures are drawn; write is_reg = true if these are such, or remove this key"
            )
    elif subset.num_class_images and not subset.class_prompt:
        yield 'class_prompt: this is missing, and there are no class tokens to draw from; write class_prompt = "a frog", for example'
