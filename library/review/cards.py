"""Which pictures a report shows, and each of them as the model will see it in the first epoch."""
from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from library.data.image_files import BadImage
from library.data.lookalikes import Lookalike
from library.data.order import TrainingOrder
from library.data.read_ahead import read_ahead
from library.data.records import ImageRecord, PreparedDataset, Size
from library.data.report import cropped_share, is_enlarged
from library.data.scan import THREADS
from library.review.views import View, overlay, views_of
from library.types import Batch, BatchPlace, SampleRef

PER_BUCKET = 24  # pictures shown
PER_PAGE = 600  # so that a page stays below about 15 MB, whatever the number of pictures and buckets
PAIRS = 24  # of look-alikes shown of a dataset
LARGEST_SIDE = 288  # pixels of a thumbnail
STRONG_CROP = 0.2  # of the area: worth a badge
_QUALITY = 85  # of JPEGs
_AHEAD = 8


@dataclass(frozen=True)
class Card:
    """A picture on the page. `record` is None where a class of the user's made the batch."""

    path: str
    caption: str
    size: Size  # that the model sees
    picture: str | None  # data: URI of a JPEG
    mask: str | None  # data: URI of a PNG to lay over it
    counting: float | None  # mean weight of its pixels, if it has a mask
    shows_latents: bool
    flipped: bool
    loss_weight: float
    record: ImageRecord | None
    lookalike: Lookalike | None
    crop_moves: bool = False  # it is cropped at a place that is drawn, or at a face
    problem: str = ""  # why there is no picture

    @property
    def lost(self) -> float:
        return cropped_share(self.record) if self.record else 0.0

    @property
    def enlarged(self) -> float:
        """By how much, at least 1."""
        if self.record is None or not is_enlarged(self.record):
            return 1.0
        return max(self.record.resized[0] / self.record.size[0], self.record.resized[1] / self.record.size[1])

    @property
    def is_odd(self) -> bool:
        """Whether a person should look at it twice."""
        return bool(self.problem or self.lookalike or not self.caption or self.lost > STRONG_CROP or self.enlarged > 1)


Sheets = list[dict[Size, list[Card]]]  # by dataset and bucket


class Entry(NamedTuple):
    """A picture's first use in the first epoch."""

    ref: SampleRef
    record: ImageRecord


def choose(prepared: Sequence[PreparedDataset]) -> list[dict[Size, list[Entry]]]:
    """By dataset and bucket up to PER_BUCKET pictures of the first epoch, evenly chosen, and PER_PAGE in all."""
    datasets = []
    for number, dataset in enumerate(prepared):
        buckets: dict[Size, list[Entry]] = defaultdict(list)
        for entry in first_entries(number, dataset):
            buckets[entry.record.bucket].append(entry)
        datasets.append(dict(sorted(buckets.items())))
    room = PER_PAGE
    share = max(1, min(PER_BUCKET, PER_PAGE // max(1, sum(map(len, datasets)))))
    for dataset, buckets in zip(prepared, datasets, strict=True):
        pictures_each = dataset.settings.batch_size if dataset.maker is not None else 1
        for bucket, entries in buckets.items():
            buckets[bucket] = evenly_chosen(entries, min(max(1, share // pictures_each), room))
            room -= len(buckets[bucket])
    return datasets


def first_entries(number: int, dataset: PreparedDataset) -> list[Entry]:
    """Of each picture that the first epoch holds, in the order of the dataset, which has this number."""
    first: dict[int, int] = {}
    for entry, index in enumerate(dataset.entries(epoch=1)):
        first.setdefault(index, entry)
    return [Entry(SampleRef(number, entry), dataset.records[index]) for index, entry in sorted(first.items())]


def evenly_chosen(items: Sequence[Entry], count: int) -> list[Entry]:
    """The first, the last, and what lies between at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[place * (len(items) - 1) // max(1, count - 1)] for place in range(count)]


class CardMaker:
    """Makes cards through the dataset that trains, so that they show what training gets."""

    def __init__(
        self,
        prepared: Sequence[PreparedDataset],
        orders: Sequence[TrainingOrder],  # of each process
        load: Callable[[BatchPlace], Batch],
        lookalikes: Sequence[list[Lookalike]],
    ):
        self._prepared = prepared
        self._orders = orders
        self._load = load
        self._absent = [dataset.absent for dataset in prepared]
        self._lookalikes = [{found.path: found for found in of_dataset} for of_dataset in lookalikes]

    def sheets(self) -> Sheets:
        """The pictures of each bucket."""
        chosen = choose(self._prepared)
        cards = self._cards([entry for buckets in chosen for entries in buckets.values() for entry in entries])
        return [
            {bucket: [card for _ in entries for card in next(cards)][:PER_BUCKET] for bucket, entries in buckets.items()}
            for buckets in chosen
        ]

    def pairs(self, number: int) -> list[tuple[Card, Card]]:
        """Up to PAIRS look-alikes of a dataset, each behind the picture that it looks like."""
        entries = {entry.record.path: entry for entry in first_entries(number, self._prepared[number])}
        pairs = [(found.of, found.path) for found in self._lookalikes[number].values()]
        shown = [pair for pair in pairs if entries.keys() >= set(pair)][:PAIRS]
        cards = [card for made in self._cards([entries[path] for pair in shown for path in pair]) for card in made]
        return list(zip(cards[::2], cards[1::2], strict=True))

    def _cards(self, entries: Sequence[Entry]) -> Iterator[list[Card]]:
        """Of each entry: one card, or those of a whole batch that a class of the user's makes."""
        foreign = any(dataset.maker is not None for dataset in self._prepared)  # which may not know of threads
        places = self._places({entry.ref for entry in entries})
        with ThreadPoolExecutor(1 if foreign else THREADS) as pool:
            yield from read_ahead(pool, lambda entry: self._of_entry(entry, places[entry.ref]), entries, _AHEAD)

    def _places(self, wanted: set[SampleRef]) -> dict[SampleRef, BatchPlace]:
        """Where each entry stands in the first epoch."""
        found: dict[SampleRef, BatchPlace] = {}
        for order in self._orders:
            for place in order.places(1, order.steps_per_epoch):
                found.update((ref, place) for ref in wanted.intersection(place.samples) if place.share)
        return found

    def _of_entry(self, entry: Entry, place: BatchPlace) -> list[Card]:
        dataset, record = self._prepared[entry.ref.dataset], entry.record
        if dataset.maker is not None:
            return [_card(view) for view in views_of(self._load(place))]
        lookalike = self._lookalikes[entry.ref.dataset].get(record.path)
        subset = dataset.settings.subsets[record.subset]
        crop_moves = subset.random_crop or subset.face_crop_aug_range is not None
        try:
            (view,) = views_of(self._load(replace(place, samples=(entry.ref,))), self._absent[entry.ref.dataset])
        except BadImage as error:
            return [_without_picture(record, lookalike, error.reason)]
        return [replace(_card(view, record, lookalike), crop_moves=crop_moves)]


def _card(view: View, record: ImageRecord | None = None, lookalike: Lookalike | None = None) -> Card:
    return Card(
        path=view.path,
        caption=view.caption,
        size=view.size,
        picture=None if view.pixels is None else _jpeg(view.pixels),
        mask=None if view.weights is None else _png(overlay(view.weights)),
        counting=None if view.weights is None else float(view.weights.mean()),
        shows_latents=view.shows_latents,
        flipped=view.flipped,
        loss_weight=view.loss_weight,
        record=record,
        lookalike=lookalike,
        problem=view.absent,
    )


def _without_picture(record: ImageRecord, lookalike: Lookalike | None, problem: str) -> Card:
    return Card(
        path=record.path,
        caption=record.caption,
        size=record.bucket,
        picture=None,
        mask=None,
        counting=None,
        shows_latents=False,
        flipped=False,
        loss_weight=1.0,
        record=record,
        lookalike=lookalike,
        problem=problem,
    )


def _jpeg(pixels: np.ndarray) -> str:
    """Small pictures keep all their colours, as the page enlarges them."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    small = max(picture.size) <= LARGEST_SIDE // 2
    picture.save(buffer, format="JPEG", quality=95 if small else _QUALITY, subsampling=0 if small else 2)
    return _data_uri("image/jpeg", buffer.getvalue())


def _png(picture: Image.Image) -> str:
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return _data_uri("image/png", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
