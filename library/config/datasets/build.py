"""Makes dataset settings out of layers, with the checks that every dataset passes wherever its settings come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from library.config.datasets.keys import DATASET, GENERAL, KEYS
from library.config.datasets.layers import Layers
from library.config.datasets.settings import CaptionSettings, DatasetSettings, SubsetSettings

LATENT_PIXELS = 8  # the VAE makes one latent of 8 x 8 pixels
BUCKET_UNIT = 64  # the U-Net halves latents three times more


def dataset_settings(
    layers: Layers, subsets: list[SubsetSettings], where: str, notes: list[str], mistakes: list[str]
) -> DatasetSettings | None:
    """A checked dataset: bucket limits on the grid, repeated and unused subsets left out (both noted)."""
    notes = list(notes)
    usable = _usable_subsets(subsets, notes, mistakes)
    values = {name: layers.value(name) for name in _keys_of(DatasetSettings)}
    if values["resolution"] is None:
        if not layers.is_written("resolution"):  # otherwise it is wrong, which was told
            tables = f"write resolution = 512 in {DATASET} or {GENERAL}, or " if layers.tables else ""
            mistakes.append(f"{where}: resolution is missing; {tables}give --resolution 512")
        return None
    dataset = DatasetSettings(**values, subsets=usable, where=where)
    mistakes += _resolution_mistakes(dataset, layers)
    if dataset.enable_bucket:
        dataset = _with_bucket_limits(dataset, layers, notes, mistakes)
        mistakes += [
            f"{subset.where} face_crop_aug_range: this works without enable_bucket only; remove one of them"
            for subset in usable
            if subset.face_crop_aug_range
        ]
    if not mistakes:
        mistakes += _emptiness(dataset, subsets)
    return dataclasses.replace(dataset, notes=tuple(notes))


def subset_settings(layers: Layers, where: str) -> SubsetSettings:
    """The settings of one subset as its layers say."""
    values = {name: layers.value(name) for name in _keys_of(SubsetSettings)}
    values["image_dir"] = Path(values["image_dir"])
    values["custom_attributes"] = values["custom_attributes"] or {}
    values["caption_extension"] = "." + values["caption_extension"].removeprefix(".")
    caption = CaptionSettings(**{name: layers.value(name) for name in _keys_of(CaptionSettings)})
    return SubsetSettings(**values, caption=caption, where=where)


def folder_mistake(folder: Path) -> str | None:
    """What is wrong with a path that has to be a folder, and what may be the reason."""
    try:
        if folder.is_dir():
            return None
        if folder.is_file():
            return f"{folder} is a file; name the folder that holds it"
    except OSError as error:  # a name that the system refuses, or a place that may not be looked into
        return f"'{folder}' cannot be read ({error.strerror})"
    if any(character in str(folder) for character in "\n\t\r\b\f"):
        shown = str(folder).encode("unicode_escape").decode()
        return f"there is no folder '{shown}'; \\n, \\t, ... in double quotes are no backslashes, use single quotes: 'C:\\folder'"
    hint = "" if folder.is_absolute() else f" (relative paths begin where the command is run, in {Path.cwd()})"
    return f"there is no folder '{folder}'{hint}"


def _keys_of(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)} & KEYS.keys()


def _resolution_mistakes(dataset: DatasetSettings, layers: Layers) -> list[str]:
    return [
        f"{layers.where('resolution')}: {side} is not a positive multiple of {LATENT_PIXELS}; "
        f"write {max(BUCKET_UNIT, round(side / BUCKET_UNIT) * BUCKET_UNIT)}, for example"
        for side in sorted(set(dataset.resolution))
        if side <= 0 or side % LATENT_PIXELS
    ]


def _with_bucket_limits(dataset: DatasetSettings, layers: Layers, notes: list[str], mistakes: list[str]) -> DatasetSettings:
    steps = dataset.bucket_reso_steps
    if steps % BUCKET_UNIT:
        mistakes.append(f"{layers.where('bucket_reso_steps')}: {steps} is not divisible by {BUCKET_UNIT}; write 64, 128, ...")
        return dataset
    smallest = dataset.min_bucket_reso // steps * steps
    largest = -(-dataset.max_bucket_reso // steps) * steps
    for name, given, used in (
        ("min_bucket_reso", dataset.min_bucket_reso, smallest),
        ("max_bucket_reso", dataset.max_bucket_reso, largest),
    ):
        if used != given:
            notes.append(f"{layers.where(name)}: {given} is not a multiple of bucket_reso_steps ({steps}); {used} is used")
    shorter, longer = sorted(dataset.resolution)
    if shorter < steps:
        mistakes.append(f"{layers.where('resolution')}: with enable_bucket, no side may be under bucket_reso_steps ({steps})")
    elif smallest > shorter or smallest < steps:
        problem = f"{smallest} is more than the shorter side of resolution ({shorter})" if smallest else "0 is no size"
        mistakes.append(
            f"{layers.where('min_bucket_reso')}: {problem}; write min_bucket_reso = {max(shorter // 2 // steps, 1) * steps}"
        )
    if largest < longer:
        mistakes.append(
            f"{layers.where('max_bucket_reso')}: {largest} is less than the longer side of resolution ({longer}); "
            f"write max_bucket_reso = {-(-longer * 2 // steps) * steps}"
        )
    return dataclasses.replace(dataset, min_bucket_reso=smallest, max_bucket_reso=largest)


def _usable_subsets(subsets: list[SubsetSettings], notes: list[str], mistakes: list[str]) -> tuple[SubsetSettings, ...]:
    usable: dict[Path, SubsetSettings] = {}
    for subset in subsets:
        folder = subset.image_dir.resolve()
        if subset.num_repeats < 1:
            notes.append(f"{subset.where} num_repeats: {subset.num_repeats} leaves this subset out")
        elif folder in usable:
            notes.append(
                f"{subset.where} image_dir: {subset.image_dir} is left out here, {usable[folder].where} reads it already"
            )
        else:
            usable[folder] = subset
            mistakes += _subset_mistakes(subset)
    return tuple(usable.values())


def _subset_mistakes(subset: SubsetSettings) -> list[str]:
    mistakes = []
    if problem := folder_mistake(subset.image_dir):
        mistakes.append(f"{subset.where} image_dir: {problem}")
    if subset.caption_extension == ".":
        mistakes.append(f'{subset.where} caption_extension: this is empty; write ".txt", for example')
    if subset.custom_attributes.get("diff_output_preservation"):
        mistakes.append(f"{subset.where} custom_attributes: diff_output_preservation is known, not built yet")
    crop = subset.face_crop_aug_range
    if crop and not 0 < crop[0] <= crop[1]:
        mistakes.append(f"{subset.where} face_crop_aug_range: {crop[0]}, {crop[1]} is no range; write [2.0, 4.0], for example")
    return mistakes


def _emptiness(dataset: DatasetSettings, subsets: list[SubsetSettings]) -> list[str]:
    if subsets and not dataset.subsets:
        return [f"{dataset.where}: every subset is left out because its num_repeats is under 1"]
    if all(subset.is_reg for subset in dataset.subsets):
        return [f"{dataset.where}: there are only regularisation pictures (is_reg); add pictures to train on"]
    return []
