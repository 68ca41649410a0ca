"""The random numbers of a batch, as a function of the seed, the step and the place of each sample in the global batch."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from library.seeding import python_random, torch_generator

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from torch import Tensor

    from library.types import BatchPlace


class Draws:
    """Draws by name. A sample gets the same numbers whichever process, device or batch it is in.

    All tensors are made on the CPU in float32, so that every machine sees the same ones; callers move them.
    """

    def __init__(self, seed: int, place: BatchPlace, count: int):
        """count: of the samples in the batch; a class of the user's may put several into one entry."""
        self._key = (seed, place.step, place.micro_step)
        self._positions = range(place.first_position, place.first_position + count)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers [B, *shape], one independent stream per sample."""
        return torch.stack([torch.randn(tuple(shape), generator=self._generator(name, p)) for p in self._positions])

    def integers(self, name: str, low: int, high: int) -> Tensor:
        """Uniform integers [B] in [low, high), int64."""
        return torch.cat([torch.randint(low, high, (1,), generator=self._generator(name, p)) for p in self._positions])

    def batch_random(self, name: str) -> random.Random:
        """A generator for what is drawn once per batch; equal in all processes that work on the same micro-step."""
        return python_random(*self._key, "batch", name)

    def _generator(self, name: str, position: int) -> torch.Generator:
        return torch_generator(*self._key, position, name)
