"""What a run's files say of its data: for the metadata that others read, and for the check that a state fits its data."""
from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from library.config.datasets.settings import DatasetSettings

Size = tuple[int, int]  # (width, height) in pixels


class Record(Protocol):
    """An image of `library.data`."""

    path: str
    size: Size
    caption: str
    subset: int
    is_reg: bool
    num_repeats: int
    bucket: Size


class Prepared(Protocol):
    """A dataset of `library.data` with its images."""

    settings: DatasetSettings

    @property
    def records(self) -> Sequence[Record]: ...

    def entries(self) -> list[int]: ...


@dataclass(frozen=True)
class SubsetFacts:
    image_count: int
    tag_counts: dict[str, int]  # lower-case, in the order of their first appearance


@dataclass(frozen=True)
class DatasetFacts:
    """One [[datasets]] table as the metadata shows it."""

    settings: DatasetSettings
    subsets: tuple[SubsetFacts, ...]  # in the order of settings.subsets
    num_train_images: int  # with repeats
    num_reg_images: int  # as they are used in an epoch
    bucket_counts: dict[Size, int]  # entries of an epoch in each bucket, narrowest first
    mean_aspect_error: float  # mean |bucket's w/h - image's w/h|


@dataclass(frozen=True)
class DatasetIdentity:
    """What the order of the data is a function of, besides the seed."""

    fingerprint: str
    images: int
    entries: int  # images x repeats in an epoch
    batch_sizes: tuple[int, ...]  # of each dataset


def dataset_facts(prepared: Prepared) -> DatasetFacts:
    records, entries = prepared.records, prepared.entries()
    reg_entries = sum(records[index].is_reg for index in entries)
    buckets = Counter(records[index].bucket for index in entries)
    errors = [abs(_aspect(record.bucket) - _aspect(record.size)) for record in records]
    return DatasetFacts(
        settings=prepared.settings,
        subsets=tuple(
            _subset_facts([record for record in records if record.subset == index])
            for index in range(len(prepared.settings.subsets))
        ),
        num_train_images=len(entries) - reg_entries,
        num_reg_images=reg_entries,
        bucket_counts=dict(sorted(buckets.items())),
        mean_aspect_error=sum(errors) / len(errors) if errors else 0.0,
    )


def dataset_identity(datasets: Sequence[Prepared]) -> DatasetIdentity:
    """Changes with everything that the order depends on; not with the folder that the images lie in, nor with captions."""
    digest = hashlib.sha256()
    for prepared in datasets:
        digest.update(json.dumps(["dataset", prepared.settings.batch_size]).encode())
        for record in prepared.records:
            name = record.path.replace("\\", "/").rsplit("/", 1)[-1]
            others = _as_json(record.size, record.subset, record.is_reg, record.num_repeats, record.bucket)
            digest.update(f"[{encode_basestring_ascii(name)}, {others[1:]}".encode())
    return DatasetIdentity(
        fingerprint=digest.hexdigest(),
        images=sum(len(prepared.records) for prepared in datasets),
        entries=sum(len(prepared.entries()) for prepared in datasets),
        batch_sizes=tuple(prepared.settings.batch_size for prepared in datasets),
    )


@lru_cache(maxsize=4096)
def _as_json(*facts: int | Size) -> str:
    """Many images differ in their names alone."""
    return json.dumps(facts)


def _aspect(size: Size) -> float:
    return size[0] / size[1]


def _subset_facts(records: Sequence[Record]) -> SubsetFacts:
    tags = Counter(tag for record in records for part in record.caption.split(",") if (tag := part.strip().lower()))
    return SubsetFacts(len(records), dict(tags))
