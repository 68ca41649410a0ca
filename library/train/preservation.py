"""What the model is to go on to predict as it did before training: samples that are marked, and prompts of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from library.config.datasets.preservation import PRESERVED
from library.data.records import PreparedDataset
from library.types import Batch, ClassPrompts, Conditioning


def wants_base(prepared: Sequence[PreparedDataset]) -> bool:
    """Whether the base model's predictions are targets. A class of the user's has not said yet what it will mark."""
    return any(True for _ in preservation_notes(prepared))


def preservation_notes(prepared: Sequence[PreparedDataset]) -> Iterator[str]:
    """For the plan of a run."""
    subsets = [(dataset.settings.subsets[record.subset], record) for dataset in prepared for record in dataset.records]
    marked = sum(bool(subset.custom_attributes.get(PRESERVED)) for subset, _ in subsets)
    if marked:
        yield f"diff_output_preservation: the target of {marked} pictures is what the base model predicts"
    prompts = [subset.class_prompt for subset, record in subsets if subset.class_prompt and not record.is_reg]
    if prompts:
        texts = ", ".join(f'"{prompt}"' for prompt in dict.fromkeys(prompts))
        yield f"prior_prediction: beside {len(prompts)} pictures the model keeps what it predicts of {texts}; steps take twice as long"


def preserved(batch: Batch) -> list[bool]:
    """Of each sample, whether its target is what the base model predicts."""
    attributes = batch.custom_attributes or [{}] * len(batch.captions)  # a class of the user's may give none
    return [bool(of_one.get(PRESERVED)) for of_one in attributes]


def silent_prompt(batch: Batch) -> ClassPrompts:
    """One that counts nothing, for a process that must join the passes that another one's batch needs."""
    given = batch.conditioning
    first = None if given is None else Conditioning(given.hidden_states[:1], None if given.pooled is None else given.pooled[:1])
    return ClassPrompts([0], batch.captions[:1], 0.0, first)


def class_batch(batch: Batch, prompts: ClassPrompts) -> Batch:
    """The samples that have a class prompt, with it in the place of their caption, and marked.

    It teaches nothing of the pictures, so that their masks have no say.
    """
    import torch

    numbers = prompts.samples
    return replace(
        batch,
        captions=prompts.prompts,
        conditioning=prompts.conditioning,
        image_paths=[batch.image_paths[number] for number in numbers],
        loss_weights=torch.full((len(numbers),), prompts.weight),
        images=None,
        posterior=None,
        masks=None,
        original_sizes_hw=batch.original_sizes_hw[numbers],
        crop_top_lefts=batch.crop_top_lefts[numbers],
        target_sizes_hw=batch.target_sizes_hw[numbers],
        flipped=[batch.flipped[number] for number in numbers],
        subsets=[batch.subsets[number] for number in numbers],
        custom_attributes=[{PRESERVED: True}] * len(numbers),
        class_prompts=None,
    )
