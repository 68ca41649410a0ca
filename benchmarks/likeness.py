"""How near pictures are to a set of pictures, and when a change counts as one: pure functions on features, no model.

Features are a flat row of numbers per picture: the VAE's latents of it (the mean, scaled as the denoiser sees it). Distances have
the unit of the latents, whose deviation over many pictures is about 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPREADS = 2.0  # how many times the spread over the seeds a gain must be


def distances(drawn: np.ndarray, references: np.ndarray) -> np.ndarray:
    """[N, D], [M, D] -> [N, M]: root mean square difference of every picture from every reference."""
    return _root_mean_square(drawn[:, None] - references[None])


def nearest_distances(drawn: np.ndarray, references: np.ndarray) -> np.ndarray:
    """[N, D], [M, D] -> [N]: the distance of each picture to that reference which is nearest to it."""
    return distances(drawn, references).min(axis=1)


def paired_distances(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[N, D], [N, D] -> [N]: how far each picture is from the one of the same prompt and the same first noise."""
    return _root_mean_square(after - before)


def typical_distance(pictures: np.ndarray) -> float:
    """[N, D]: the mean distance between two pictures of different prompts: how far it is from one thing to another."""
    return float(distances(pictures, pictures)[np.triu_indices(len(pictures), 1)].mean())


def _root_mean_square(differences: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(differences, dtype=np.float64), axis=-1))


@dataclass(frozen=True)
class Gain:
    """By how much a distance became smaller, for each seed."""

    per_seed: tuple[float, ...]

    @classmethod
    def between(cls, before: Sequence[float], after: Sequence[float]) -> Gain:
        return cls(tuple(b - a for b, a in zip(before, after, strict=True)))

    @property
    def mean(self) -> float:
        return float(np.mean(self.per_seed))

    @property
    def spread(self) -> float:
        """Largest minus smallest; with three seeds about twice their standard deviation, hence stricter."""
        return max(self.per_seed) - min(self.per_seed)

    @property
    def holds(self) -> bool:
        """Whether there is a gain, and one that the choice of the seed does not explain."""
        return self.mean > 0 and self.mean >= SPREADS * self.spread

    def __str__(self) -> str:
        return f"{self.mean:+.3f}, spread over the seeds {self.spread:.3f}"
