"""What a network is to leave as it is: pictures marked with diff_output_preservation, and class prompts under prior_prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from library.config.datasets.settings import DatasetSettings, SubsetSettings
from library.config.settings import Settings

PRESERVED = "diff_output_preservation"  # in custom_attributes: the target of these pictures is what the base model predicts


def preservation_mistakes(datasets: Sequence[DatasetSettings], settings: Settings) -> Iterator[str]:
    """What is wrong with the wish, all datasets taken together."""
    subsets = [subset for dataset in datasets for subset in dataset.subsets]
    for subset in subsets:
        yield from _marking_mistakes(subset, settings)
    prompted = [subset for subset in subsets if subset.class_prompt and not subset.is_reg]
    if not settings.data.prior_prediction:
        yield from (
            f"{subset.where} class_prompt: only regularisation pictures are drawn; write is_reg = true if these are such, give "
            "--prior_prediction if this is what the model is to keep, or remove this key"
            for subset in prompted
        )
    elif not prompted:
        yield (
            f"{settings.where('prior_prediction')}: nothing says what the model is to keep; give --class_prompt \"a photo of a frog\", "
            "or write class_prompt in subsets of the dataset file"
        )


def _marking_mistakes(subset: SubsetSettings, settings: Settings) -> Iterator[str]:
    mark = subset.custom_attributes.get(PRESERVED, False)
    if not isinstance(mark, bool):
        yield f"{subset.where} custom_attributes: {PRESERVED} is true or false, found {mark!r}"
    elif mark and settings.script.method not in ("adapter", "caching"):
        yield (
            f"{subset.where} custom_attributes: {PRESERVED} needs the base model beside what is trained, which only networks "
            "(train_network.py) leave as it is; remove it"
        )
