"""Regularisation pictures that are drawn before training: into which folders, and what the subsets must agree on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.settings import Settings

_NOT_IN_NAMES = set('/\\:*?"<>|')  # of folders, on one system or another
_LONGEST_NAME = 80  # characters


def class_folder_name(prompt: str) -> str:
    """The name of the folder that is made for the pictures of a prompt: "1_a frog"."""
    words = "".join("_" if letter in _NOT_IN_NAMES or not letter.isprintable() else letter for letter in prompt)
    return f"1_{words[:_LONGEST_NAME]}".rstrip(" .")


def class_image_mistakes(datasets: Sequence[DatasetSettings], settings: Settings) -> Iterator[str]:
    """What is wrong with the wish for class pictures, the datasets taken together."""
    names = ("num_class_images",) if settings.data.prior_prediction else ("num_class_images", "class_prompt")
    wanted = [name for name in names if settings.changed(name)]
    subsets = [subset for dataset in datasets for subset in dataset.subsets if subset.image_dir]
    if not any(subset.is_reg for subset in subsets):
        yield from (f"{settings.where(name)}: there are no regularisation pictures; {_remedy(settings)}" for name in wanted)
    by_folder: dict[Path, SubsetSettings] = {}
    by_prompt: dict[str, SubsetSettings] = {}
    for subset in sorted(subsets, key=lambda subset: not subset.num_class_images):  # those that draw first
        assert subset.image_dir is not None
        same_folder = by_folder.setdefault(subset.image_dir.resolve(), subset)
        if same_folder.num_class_images and _wish(subset) != _wish(same_folder):
            yield (
                f"{subset.where} image_dir: class pictures are drawn into {subset.image_dir} for {same_folder.where}; "
                "here it needs the same is_reg, num_class_images and class_prompt"
            )
        elif subset is same_folder and subset.is_reg and subset.class_prompt:
            other = by_prompt.setdefault(subset.class_prompt, subset)
            if other is not subset and (subset.num_class_images or subset.class_prompt == settings.data.class_prompt):
                yield (
                    f'{subset.where} class_prompt: "{subset.class_prompt}" is that of {other.where} already; '
                    "use one folder for both, or a dataset file with a class_prompt for each"
                )


def _wish(subset: SubsetSettings) -> tuple[bool, int, str | None]:
    return subset.is_reg, subset.num_class_images, subset.class_prompt


def _remedy(settings: Settings) -> str:
    if settings.data.dataset_config:
        return f"write is_reg = true in a subset of {settings.data.dataset_config}, or remove this option"
    return "remove this option, or use folders (--train_data_dir with --reg_data_dir) or a dataset file"
