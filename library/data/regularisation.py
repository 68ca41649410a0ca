"""How often each regularisation image appears: as many entries per epoch as training images, spread evenly over all of them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

Bucket = tuple[int, int]


@dataclass(frozen=True)
class Ring:
    """The regularisation images of one bucket, walked round and round: each epoch takes the next `slots` of them."""

    slots: int
    order: tuple[int, ...]  # record indices, each as often as its weight says

    def turn(self, epoch: int) -> list[int]:
        """The record indices of the 1-based epoch."""
        start = (epoch - 1) * self.slots
        return [self.order[position % len(self.order)] for position in range(start, start + self.slots)]


def balanced_rings(weights: Mapping[Bucket, Mapping[int, int]], train_entries: int) -> list[Ring]:
    """One ring per bucket, sorted by bucket, from each image's weight (its num_repeats) by bucket and record index.

    Together they hold `train_entries` slots, one for each training entry. Every bucket gets at least one, for an image without
    a slot would never be seen; only with more buckets than training entries does the total exceed `train_entries`.
    """
    slots = share_out({bucket: sum(images.values()) for bucket, images in weights.items()}, train_entries)
    return [Ring(slots[bucket], walking_order(weights[bucket])) for bucket in sorted(weights)]


def partner_rings(weights: Mapping[Bucket, Mapping[int, int]], train_entries: Mapping[Bucket, int]) -> list[Ring]:
    """The same for images in pairs: in each bucket a slot for each of its training entries; a bucket without any has no ring."""
    return [Ring(train_entries[bucket], walking_order(weights[bucket])) for bucket in sorted(weights) if train_entries.get(bucket)]


def share_out(weights: Mapping[Bucket, int], total: int) -> dict[Bucket, int]:
    """Whole numbers of at least 1, in proportion to the weights (largest remainders first), with the sum max(total, count)."""
    if not weights:
        return {}
    everything = sum(weights.values())
    exact = {bucket: total * weight / everything for bucket, weight in weights.items()}
    shares = {bucket: max(1, int(value)) for bucket, value in exact.items()}
    while sum(shares.values()) < total:
        neediest = max(sorted(weights), key=lambda bucket: exact[bucket] - shares[bucket])
        shares[neediest] += 1
    while sum(shares.values()) > max(total, len(weights)):
        several = [bucket for bucket in sorted(weights) if shares[bucket] > 1]
        shares[max(several, key=lambda bucket: shares[bucket] - exact[bucket])] -= 1
    return shares


def walking_order(weights: Mapping[int, int]) -> tuple[int, ...]:
    """One walk over the images: first all of them, then those of weight 2 and more, and so on, so that repeats stand apart."""
    common = gcd(*weights.values())
    rounds = max(weights.values()) // common
    return tuple(index for round_number in range(rounds) for index, weight in weights.items() if weight // common > round_number)
