"""The training's dataset for looking at: pictures that are not there yet are grey instead of an error."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from library.data.dataset import TrainingDataset
from library.types import Batch, BatchPlace

_GREY = 128


class LookedAtDataset(TrainingDataset):
    """The same batches as those of a TrainingDataset without a cache, wherever all pictures are there."""

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._absent = {path for dataset in self._prepared for path in dataset.absent}

    def __getitem__(self, place: BatchPlace) -> Batch:
        batch = self.described(place)
        there = [number for number, path in enumerate(batch.image_paths) if path not in self._absent]
        if len(there) == len(batch.image_paths):
            return super().__getitem__(place)
        height, width = batch.target_sizes_hw[0].tolist()
        images, masks = torch.full((len(batch.image_paths), 3, height, width), _GREY, dtype=torch.uint8), None
        if there:
            found = super().__getitem__(replace(place, samples=tuple(place.samples[number] for number in there)))
            assert found.images is not None
            images[there] = found.images
            if found.masks is not None:
                masks = torch.ones(len(batch.image_paths), height, width)
                masks[there] = found.masks
        return replace(batch, images=images, masks=masks)
