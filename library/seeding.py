"""Random numbers as functions of counters: the same keys give the same numbers in any process, thread or run."""
from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_from(*keys: int | str) -> int:
    """A seed of 63 bits from any number of keys; changing any one of them changes it beyond recognition."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") >> 1


def python_random(*keys: int | str) -> random.Random:
    """A private `random.Random` for these keys."""
    return random.Random(seed_from(*keys))


def torch_generator(*keys: int | str) -> torch.Generator:
    """A private CPU generator for these keys (CPU, so that every device sees the same numbers)."""
    import torch

    return torch.Generator().manual_seed(seed_from(*keys))
