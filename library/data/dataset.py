"""A place in the run to the batch that stands there: captions processed, images augmented or latents looked up."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from library.data.cache import LatentCache
from library.data.captions import Replacement, process_caption
from library.data.pixels import augmented_pixels, crop_top_left, mask_weights, stacked
from library.data.records import ImageRecord, Place, PreparedDataset
from library.data.text_cache import TextCache
from library.seeding import python_random
from library.types import Batch, BatchPlace, ClassPrompts, Posterior, SampleRef

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings

FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class _Sample:
    """An entry of an epoch, looked up."""

    ref: SampleRef
    image: Place
    record: ImageRecord
    subset: SubsetSettings
    flipped: bool


class TrainingDataset(Dataset[Batch]):
    """Batches by place. A batch depends on the seed and the place alone, whichever process makes it and in whatever order."""

    def __init__(
        self,
        prepared: Sequence[PreparedDataset],
        seed: int,
        max_train_steps: int,
        prior_loss_weight: float,
        cache: LatentCache | None = None,
        replacements: Sequence[Replacement] = (),
        text_cache: TextCache | None = None,
    ):
        self.cache = cache
        self.text_cache = text_cache
        self._prepared = prepared
        self._seed = seed
        self._max_train_steps = max_train_steps
        self._prior_loss_weight = prior_loss_weight
        self._replacements = replacements  # in captions
        self._entries: dict[int, tuple[int, list[int]]] = {}  # by dataset: the epoch last asked for, its entries

    def __getitem__(self, place: BatchPlace) -> Batch:
        """The batch of a place, except that what is cached in memory is still to come: see `completed`."""
        samples = [self._sample(place.epoch, ref) for ref in place.samples]
        batch = self._described(place, samples)
        if self.cache is None:
            batch = self._with_images(batch, samples)
        elif not self.cache.in_memory:
            batch = self._with_latents(batch, samples)
        return batch if self.text_cache is None or self.text_cache.in_memory else self._with_text(batch, samples)

    def described(self, place: BatchPlace) -> Batch:
        """The batch of a place without pixels or latents."""
        return self._described(place, [self._sample(place.epoch, ref) for ref in place.samples])

    def completed(self, batch: Batch) -> Batch:
        """Add what only the main process has, so that no loader's worker needs a copy of it."""
        samples = [self._sample(batch.place.epoch, ref) for ref in batch.place.samples]
        if self.cache is not None and self.cache.in_memory:
            batch = self._with_latents(batch, samples)
        if self.text_cache is not None and self.text_cache.in_memory:
            batch = self._with_text(batch, samples)
        if self.text_cache is not None and batch.class_prompts is not None:
            found = self.text_cache.of_class_prompts(batch.class_prompts.prompts)
            batch = replace(batch, class_prompts=replace(batch.class_prompts, conditioning=found))
        return batch

    @property
    def is_in_memory(self) -> bool:
        """Whether there is next to nothing to do for a batch."""
        caches = (self.cache, self.text_cache) if self.text_cache is not None else (self.cache,)
        return all(cache is not None and cache.in_memory for cache in caches)

    def _sample(self, epoch: int, ref: SampleRef) -> _Sample:
        dataset = self._prepared[ref.dataset]
        index = self._entries_of(ref.dataset, epoch)[ref.entry]
        record = dataset.records[index]
        subset = dataset.settings.subsets[record.subset]
        flipped = subset.flip_aug and self._random("flip", epoch, ref).random() < FLIP_PROBABILITY
        return _Sample(ref, (ref.dataset, index), record, subset, flipped)

    def _entries_of(self, dataset: int, epoch: int) -> list[int]:
        if self._entries.get(dataset, (0,))[0] != epoch:
            self._entries[dataset] = (epoch, self._prepared[dataset].entries(epoch))
        return self._entries[dataset][1]

    def _random(self, name: str, epoch: int, ref: SampleRef) -> random.Random:
        return python_random(self._seed, name, epoch, ref.dataset, ref.entry)

    def _described(self, place: BatchPlace, samples: list[_Sample]) -> Batch:
        """The batch without pixels or latents."""
        records = [sample.record for sample in samples]
        crops = [crop_top_left(sample.record.size, sample.record.bucket, sample.flipped) for sample in samples]
        dataset = self._prepared[samples[0].ref.dataset]
        return Batch(
            place=place,
            captions=[self._caption(place, sample) for sample in samples],
            image_paths=[record.path for record in records],
            loss_weights=torch.tensor([self._prior_loss_weight if record.is_reg else 1.0 for record in records]),
            images=None,
            posterior=None,
            masks=None,
            original_sizes_hw=torch.tensor([record.size[::-1] for record in records]),
            crop_top_lefts=torch.tensor(crops),
            target_sizes_hw=torch.tensor([record.bucket[::-1] for record in records]),
            flipped=[sample.flipped for sample in samples],
            subsets=[record.subset for record in records],
            network_multiplier=dataset.settings.network_multiplier,
            custom_attributes=[sample.subset.custom_attributes for sample in samples],
            class_prompts=self._class_prompts(samples),
            loss_factor=2.0 if dataset.is_paired else 1.0,
        )

    def _class_prompts(self, samples: list[_Sample]) -> ClassPrompts | None:
        """Of regularisation images the prompt is their caption."""
        found = {n: sample.subset.class_prompt for n, sample in enumerate(samples) if not sample.record.is_reg}
        prompts = {number: prompt for number, prompt in found.items() if prompt}
        return ClassPrompts(list(prompts), list(prompts.values()), self._prior_loss_weight) if prompts else None

    def _caption(self, place: BatchPlace, sample: _Sample) -> str:
        rng = self._random("caption", place.epoch, sample.ref)
        if self.text_cache is not None:
            return self.text_cache.draw(sample.image, place.epoch, rng)
        settings = sample.subset.caption
        replacements = () if sample.record.is_reg else self._replacements  # the class is not what the new word means
        return process_caption(sample.record.caption, settings, rng, place.epoch, place.step, self._max_train_steps, replacements)

    def _with_images(self, batch: Batch, samples: list[_Sample]) -> Batch:
        pixels = []
        for sample in samples:
            found = augmented_pixels(sample.record, sample.subset, self._random("augment", batch.place.epoch, sample.ref))
            pixels.append(found.mirrored() if sample.flipped else found)
        masks = mask_weights([found.weights for found in pixels], samples[0].record.bucket)
        return replace(batch, images=stacked([found.image for found in pixels]), masks=masks)

    def _with_latents(self, batch: Batch, samples: list[_Sample]) -> Batch:
        assert self.cache is not None
        latents = [self.cache.read(sample.image, sample.flipped) for sample in samples]
        posterior = Posterior(
            mean=torch.from_numpy(np.stack([found.mean for found in latents])),
            std=torch.from_numpy(np.stack([found.std for found in latents])),
        )
        masks = mask_weights([found.mask for found in latents], samples[0].record.bucket)
        return replace(batch, posterior=posterior, masks=masks)

    def _with_text(self, batch: Batch, samples: list[_Sample]) -> Batch:
        assert self.text_cache is not None
        read = self.text_cache.read
        texts = [read(sample.image, caption) for sample, caption in zip(samples, batch.captions, strict=True)]
        return replace(batch, conditioning=self.text_cache.joined(texts))
