"""From the items of a class of the user's (--dataset_class) to our batches."""
from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from library.data.records import PreparedDataset
from library.errors import UserError
from library.seeding import seed_from
from library.types import Batch, BatchPlace, Posterior

_PIXELS = 8  # of an image per pixel of its latents, along a side


class ForeignDataset(Dataset[Batch]):
    """Batches by place, each one item of the class. It is told epoch and step before each, in the process that makes it."""

    is_in_memory = False

    def __init__(self, prepared: PreparedDataset, seed: int, max_train_steps: int):
        self._maker = prepared.maker
        self._names = [record.path for record in prepared.records]
        self._batch_size = prepared.settings.batch_size
        self._seed = seed
        self._max_train_steps = max_train_steps

    def __getitem__(self, place: BatchPlace) -> Batch:
        index = place.samples[0].entry
        told = {"max_train_steps": self._max_train_steps, "current_epoch": place.epoch, "current_step": place.step - 1}
        with _seeded(self._seed, "item", place.epoch, index):
            for name, value in told.items():
                if hasattr(self._maker, f"set_{name}"):
                    getattr(self._maker, f"set_{name}")(value)
            item = self._maker[index]
        name = self._names[index]
        if not isinstance(item, Mapping):
            raise UserError(f"{name}: expected a dictionary, found {type(item).__name__}")
        batch = _batch(place, item, name)
        if len(batch.captions) > self._batch_size:
            raise UserError(f"{name}: holds {len(batch.captions)} images, but the class says batch_size = {self._batch_size}")
        return batch

    def completed(self, batch: Batch) -> Batch:
        return batch


def _batch(place: BatchPlace, item: Mapping[str, Any], name: str) -> Batch:
    """The item with what it leaves out filled in."""
    images, latents = item.get("images"), item.get("latents")
    if (images is None) == (latents is None):
        raise UserError(f"{name}: needs either images or latents")
    shown: Any = images if images is not None else latents
    count, scale = len(shown), 1 if images is not None else _PIXELS
    size = torch.tensor([[shown.shape[-2] * scale, shown.shape[-1] * scale]]).repeat(count, 1)
    lists: dict[str, Any] = {
        "captions": item.get("captions"),
        "image_keys": item.get("image_keys") or [f"{name} number {number}" for number in range(count)],
        "flippeds": item.get("flippeds") or [False] * count,
        "custom_attributes": item.get("custom_attributes") or [{}] * count,
    }
    for key, values in lists.items():
        if values is None or len(values) != count:
            raise UserError(f"{name}: needs {count} {key}, found {'none' if values is None else len(values)}")
    return Batch(
        place=place,
        captions=list(lists["captions"]),
        image_paths=[str(key) for key in lists["image_keys"]],
        loss_weights=_given(item, "loss_weights", torch.ones(count), name).float(),
        images=None if images is None else images.float(),
        posterior=None if latents is None else Posterior(latents.float(), torch.zeros_like(latents, dtype=torch.float32)),
        masks=_masks(item),
        original_sizes_hw=_given(item, "original_sizes_hw", size, name).long(),
        crop_top_lefts=_given(item, "crop_top_lefts", torch.zeros_like(size), name).long(),
        target_sizes_hw=_given(item, "target_sizes_hw", size, name).long(),
        flipped=[bool(flipped) for flipped in lists["flippeds"]],
        network_multiplier=_multiplier(item, name),
        custom_attributes=list(lists["custom_attributes"]),
    )


def _given(item: Mapping[str, Any], key: str, default: Tensor, name: str) -> Tensor:
    if item.get(key) is None:
        return default
    value = torch.as_tensor(item[key])
    if value.shape != default.shape:
        raise UserError(f"{name}: {key} must be of shape {list(default.shape)}, found {list(value.shape)}")
    return value


def _masks(item: Mapping[str, Any]) -> Tensor | None:
    """Weights per pixel: the red channel of masks in -1..1, else alpha."""
    if item.get("conditioning_images") is not None:
        return (item["conditioning_images"][:, 0].float() + 1) / 2
    return None if item.get("alpha_masks") is None else item["alpha_masks"].float()


def _multiplier(item: Mapping[str, Any], name: str) -> float:
    found = item.get("network_multipliers")
    values = {1.0} if found is None else set(torch.as_tensor(found).flatten().tolist())
    if len(values) != 1:
        raise UserError(f"{name}: network_multipliers must be the same for all images of a batch")
    return float(values.pop())


@contextmanager
def _seeded(*keys: int | str) -> Iterator[None]:
    """The global generators as a function of the keys, for that is what other people's datasets draw from."""
    seed = seed_from(*keys)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)  # the CPU's alone
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
