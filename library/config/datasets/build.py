"""Makes dataset settings out of layers, with the checks that every dataset passes wherever its settings come from."""

from __future__ import annotations

import dataclasses

from library.config.datasets.keys import DATASET, GENERAL, KEYS
from library.config.datasets.layers import Layers
from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.datasets.subsets import usable_subsets

LATENT_PIXELS = 8  # the VAE makes one latent of 8 x 8 pixels
BUCKET_UNIT = 32  # the U-Net halves latents twice more, or three times: the model is asked for that once it is known
USUAL_UNIT = 64


def dataset_settings(
    layers: Layers, subsets: list[SubsetSettings], where: str, notes: list[str], mistakes: list[str]
) -> DatasetSettings | None:
    """A checked dataset: bucket limits on the grid, repeated and unused subsets left out (both noted)."""
    notes = list(notes)
    usable = usable_subsets(subsets, notes, mistakes)
    values = {name: layers.value(name) for name in KEYS.keys() & DatasetSettings.__dataclass_fields__}
    if values["resolution"] is None:
        if not layers.is_written("resolution"):  # otherwise it is wrong, which was told
            tables = f"write resolution = 512 in {DATASET} or {GENERAL}, or " if layers.tables else ""
            mistakes.append(f"{where}: resolution is missing; {tables}give --resolution 512")
        return None
    dataset = DatasetSettings(**values, subsets=usable, where=where)
    mistakes += _resolution_mistakes(dataset, layers)
    if dataset.network_multiplier == 0:
        mistakes.append(f"{layers.where('network_multiplier')}: at 0 the network learns nothing; write 0.5, for example")
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


def _resolution_mistakes(dataset: DatasetSettings, layers: Layers) -> list[str]:
    return [
        f"{layers.where('resolution')}: {side} is not a positive multiple of {LATENT_PIXELS}; "
        f"write {max(USUAL_UNIT, round(side / USUAL_UNIT) * USUAL_UNIT)}, for example"
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
        if dataset.bucket_no_upscale and layers.is_given(name):
            notes.append(f"{layers.where(name)}: this is not used, for bucket_no_upscale makes buckets to measure")
        elif used != given:
            notes.append(f"{layers.where(name)}: {given} is not a multiple of bucket_reso_steps ({steps}); {used} is used")
    shorter, longer = sorted(dataset.resolution)
    if shorter < steps:
        mistakes.append(f"{layers.where('resolution')}: with enable_bucket, no side may be under bucket_reso_steps ({steps})")
    elif smallest > shorter or smallest < steps:
        too_large = f"{smallest} is more than the shorter side of resolution ({shorter})"
        problem = too_large if smallest else f"{dataset.min_bucket_reso} is less than bucket_reso_steps ({steps})"
        mistakes.append(
            f"{layers.where('min_bucket_reso')}: {problem}; write min_bucket_reso = {max(shorter // 2 // steps, 1) * steps}"
        )
    if largest < longer:
        mistakes.append(
            f"{layers.where('max_bucket_reso')}: {largest} is less than the longer side of resolution ({longer}); "
            f"write max_bucket_reso = {-(-longer * 2 // steps) * steps}"
        )
    return dataclasses.replace(dataset, min_bucket_reso=smallest, max_bucket_reso=largest)


def _emptiness(dataset: DatasetSettings, subsets: list[SubsetSettings]) -> list[str]:
    if subsets and not dataset.subsets:
        return [f"{dataset.where}: every subset is left out because its num_repeats is under 1"]
    if all(subset.is_reg for subset in dataset.subsets):
        return [f"{dataset.where}: there are only regularisation pictures (is_reg); add pictures to train on"]
    return []
