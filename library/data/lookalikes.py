"""Pictures that a dataset holds twice: the same bytes, or nearly the same to look at; without comparing each with each."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from library.data.fingerprints import Fingerprint, difference_hashes, fingerprint, is_blank, normalised
from library.data.image_files import BadImage
from library.data.read_ahead import read_ahead
from library.data.records import PreparedDataset
from library.data.scan import THREADS

MOST_BITS = 5  # of 64 in which the difference hashes of near-duplicates may differ
LEAST_CORRELATION = 0.97  # of their small grey versions
_BANDS = 3  # of two hashes that differ in at most MOST_BITS, one band differs in at most MOST_BITS // _BANDS = 1
_PAIRS_AT_ONCE = 2**16
_AHEAD = 64  # pictures in work

_Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Lookalike:
    """A picture that is there already."""

    path: str
    of: str  # the first picture that it looks like, in the order of the dataset
    exact: bool  # the files are the same byte by byte
    leaks: bool = False  # it is held out to measure by, and `of` is trained on

    def __str__(self) -> str:
        likeness = "is a copy of" if self.exact else "looks like"
        return f"{likeness} {self.of}{', and is held out' if self.leaks else ''}"


@dataclass
class Comparison:
    """What comparing all pictures found."""

    lookalikes: list[list[Lookalike]] = field(default_factory=list)  # by dataset, in its order
    undecodable: list[BadImage] = field(default_factory=list)


def compare_pictures(
    prepared: Sequence[PreparedDataset], on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Comparison:
    """Looks at every picture once. Those of each dataset are compared with each other, held-out ones included."""
    by_dataset = [list(dict.fromkeys(_pictures(dataset))) for dataset in prepared]
    paths = list(dict.fromkeys(path for paths in by_dataset for path in paths))
    found = Comparison()
    prints: dict[str, Fingerprint] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (path, result) in enumerate(zip(paths, read_ahead(pool, _attempt, paths, _AHEAD), strict=True), 1):
            if isinstance(result, BadImage):
                found.undecodable.append(result)
            else:
                prints[path] = result
            on_progress(done, len(paths))
    for dataset, pictures in zip(prepared, by_dataset, strict=True):
        alike = find_lookalikes({path: prints[path] for path in pictures if path in prints})
        held_out = {record.path for record in dataset.validation.records} if dataset.validation else set()
        leaks = [pair.path in held_out and pair.of not in held_out for pair in alike]
        found.lookalikes.append([replace(pair, leaks=leak) for pair, leak in zip(alike, leaks, strict=True)])
    return found


def _pictures(dataset: PreparedDataset) -> Iterator[str]:
    """Training pictures come first: a held-out picture is told to look like one of them, not the other way round."""
    if dataset.maker is None:
        for part in (dataset, dataset.validation) if dataset.validation else (dataset,):
            absent = part.absent
            yield from (record.path for record in part.records if record.path not in absent)


def _attempt(path: str) -> Fingerprint | BadImage:
    try:
        return fingerprint(path)
    except BadImage as error:
        return error


def find_lookalikes(prints: dict[str, Fingerprint]) -> list[Lookalike]:
    """Each picture that looks like an earlier one, in order. Blank ones look like others only if the files are the same."""
    paths = list(prints)
    first_of: dict[bytes, int] = {}
    copied_from = [first_of.setdefault(found.digest, number) for number, found in enumerate(prints.values())]
    seen = [number for number in first_of.values() if not is_blank(prints[paths[number]].grey)]
    similar_to = dict(zip(seen, _earliest_similar(np.array([prints[paths[number]].grey for number in seen])), strict=True))
    found = []
    for number, path in enumerate(paths):
        if copied_from[number] != number:
            found.append(Lookalike(path, paths[copied_from[number]], exact=True))
        elif number in similar_to and seen[similar_to[number]] != number:
            found.append(Lookalike(path, paths[seen[similar_to[number]]], exact=False))
    return found


def _earliest_similar(greys: np.ndarray) -> np.ndarray:
    """For each of [N, 16, 18] the number of the first that it looks like, its own number if none."""
    first = np.arange(len(greys))
    if not len(greys):
        return first
    hashes = difference_hashes(greys)
    leaders = _leaders(greys, hashes, first)
    for earlier, later in _candidates(hashes[leaders]):
        earlier, later = leaders[earlier], leaders[later]
        better = earlier < first[later]
        earlier, later = earlier[better], later[better]
        alike = _correlation(greys[earlier], greys[later]) >= LEAST_CORRELATION
        np.minimum.at(first, later[alike], earlier[alike])
    return first


def _leaders(greys: np.ndarray, hashes: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Settles pictures of one hash among themselves, so that a thousand frames of one film make no million pairs.

    Writes into `first`; gives those that are like no earlier one of their hash, in order.
    """
    groups = defaultdict(list)
    for number, value in enumerate(hashes.tolist()):
        groups[value].append(number)
    leaders = []
    for group in groups.values():
        rest = np.array(group)
        while len(rest):
            leaders.append(rest[0])
            alike = _correlation(greys[rest[:1]], greys[rest]) >= LEAST_CORRELATION
            alike[0] = True
            first[rest[alike]] = rest[0]
            rest = rest[~alike]
    return np.array(sorted(leaders))


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (normalised(one) * normalised(other)).sum(axis=1)


def _candidates(hashes: np.ndarray) -> Iterator[_Pairs]:
    """(earlier, later) of all whose hashes differ in at most MOST_BITS, portion by portion; some come several times.

    A band is every third bit, hence a sample of the whole picture: pictures that share a white sky do not all share a band.
    """
    for band in range(_BANDS):
        bits = [1 << bit for bit in range(band, 64, _BANDS)]
        codes = hashes & np.uint64(sum(bits))
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        for flipped in (0, *bits):
            probes = codes ^ np.uint64(flipped)
            starts, ends = np.searchsorted(ordered, probes, "left"), np.searchsorted(ordered, probes, "right")
            for earlier, later in _expanded(starts, ends, order):
                near = (later > earlier) & (_bit_counts(hashes[earlier] ^ hashes[later]) <= MOST_BITS)
                if near.any():
                    yield earlier[near], later[near]


def _expanded(starts: np.ndarray, ends: np.ndarray, order: np.ndarray) -> Iterator[_Pairs]:
    """(number, each of order[starts[number]:ends[number]]), in portions of about _PAIRS_AT_ONCE."""
    counts = ends - starts
    numbers = np.flatnonzero(counts)
    portions = np.cumsum(counts[numbers]) // _PAIRS_AT_ONCE
    for part in np.split(numbers, np.flatnonzero(np.diff(portions)) + 1):
        repeated = np.repeat(part, counts[part])
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        yield repeated, order[starts[repeated] + within]


def _bit_counts(values: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set."""
    return np.unpackbits(np.ascontiguousarray(values).view(np.uint8).reshape(len(values), 8), axis=1).sum(axis=1)
