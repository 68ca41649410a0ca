"""The batches as the loader gives them, one after the other: each printed, and written as a picture that is named."""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.checkpoint.files import atomic_write
from library.data.order import TrainingOrder
from library.data.records import PreparedDataset
from library.data.report import cropped_share
from library.errors import UserError
from library.review.keys import ESCAPE
from library.review.sheet import batch_sheet
from library.review.views import View, views_of
from library.types import Batch, BatchPlace, SampleRef

HELP = "S: next batch   E: next epoch   Esc or Q: out"
NEXT_BATCH, NEXT_EPOCH, OUT = "s", "e", ("q", ESCAPE)


@dataclass(frozen=True)
class BatchWalk:
    """Over the optimizer steps first_step to last_step."""

    prepared: Sequence[PreparedDataset]
    order: TrainingOrder
    load: Callable[[Iterable[BatchPlace]], Iterator[Batch]]  # the loader
    first_step: int
    last_step: int
    folder: Path  # for the pictures
    prefix: str  # of their names

    def walk(self, keys: Iterator[str]) -> None:
        """Shows the first batch, then what the keys ask for. Without a single key: the first batch of each dataset."""
        print(HELP)
        batches = self._from_step(self.first_step)
        batch = self._show_next(batches)
        key = None
        for key in keys:
            if key in OUT or batch is None:
                break
            if key == NEXT_EPOCH:
                batches = self._from_step(batch.place.epoch * self.order.steps_per_epoch + 1)
            if key in (NEXT_BATCH, NEXT_EPOCH):
                batch = self._show_next(batches)
            else:
                print(HELP)
        if key is None and batch is not None:
            self._show_other_datasets(batch)

    def _from_step(self, step: int) -> Iterator[Batch]:
        return self.load(self.order.places(step, self.last_step))

    def _show_next(self, batches: Iterator[Batch]) -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            print(f"the run ends here, after step {self.last_step}")
        else:
            self._show(batch)
        return batch

    def _show_other_datasets(self, shown: Batch) -> None:
        """There is nobody to ask for more, so that each dataset is seen once."""
        seen = {shown.place.samples[0].dataset}
        wanted = []
        last_step = min(self.last_step, self.first_step + self.order.steps_per_epoch - 1)
        for place in self.order.places(self.first_step, last_step):
            if place.samples[0].dataset not in seen:
                seen.add(place.samples[0].dataset)
                wanted.append(place)
        for batch in self.load(wanted):
            self._show(batch)

    def _show(self, batch: Batch) -> None:
        place = batch.place
        views = views_of(batch, self.prepared[place.samples[0].dataset].absent)
        path = self.folder / f"{self.prefix}e{place.epoch:06d}_s{place.step:08d}_m{place.micro_step:02d}.png"
        title = _title(batch, self.last_step)
        try:
            with atomic_write(path, durable=False) as temporary:
                batch_sheet(views, title).save(temporary, format="PNG")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another output_dir") from error
        print(f"\n{title}\n{path}")
        for number, (view, facts) in enumerate(zip(views, self._facts(place, len(views)), strict=True), 1):
            print(f"{number:>3}  {view.path}")
            for line in _lines(view, facts):
                print(f"     {line}")

    def _facts(self, place: BatchPlace, count: int) -> list[list[str]]:
        """What the records know of each picture and its batch does not. Of batches that somebody else makes: nothing."""
        dataset = self.prepared[place.samples[0].dataset]
        if dataset.maker is not None:
            return [[] for _ in range(count)]
        entries = dataset.entries(place.epoch)
        return [_facts_of(dataset, ref, entries[ref.entry]) for ref in place.samples]


def _facts_of(dataset: PreparedDataset, ref: SampleRef, index: int) -> list[str]:
    record = dataset.records[index]
    crop = f"resized to {_shown(record.resized)}, {cropped_share(record):.1%} of it cropped away"
    return [crop, "regularisation picture" if record.is_reg else _repeat(dataset, ref, index)]


def _repeat(dataset: PreparedDataset, ref: SampleRef, index: int) -> str:
    """Training entries stand in the order of their records, so that the repeats of one stand together."""
    return f"repeat {ref.entry - bisect_left(dataset.train_entries, index) + 1} of {dataset.records[index].num_repeats}"


def _title(batch: Batch, last_step: int) -> str:
    place, count = batch.place, len(batch.captions)
    parts = [
        f"epoch {place.epoch}",
        f"step {place.step} of {last_step}",
        *([f"batch {place.micro_step + 1} of the step"] if place.micro_step or not place.ends_step else []),
        f"dataset {place.samples[0].dataset + 1}",
        f"{count} picture{'s' if count > 1 else ''}",
        *([f"network multiplier {batch.network_multiplier:g}"] if batch.network_multiplier != 1 else []),
        *(["a copy that fills up and does not count"] if place.share == 0 else []),
    ]
    return ", ".join(parts)


def _lines(view: View, facts: Sequence[str]) -> list[str]:
    crop = "crop values {} (top), {} (left)".format(*view.crop_top_left)
    sizes = f"original {_shown(view.original_size)}, the model sees {_shown(view.size)}, {crop}"
    lines = [f"caption: {view.caption or '(none)'}", sizes, *facts]
    lines.append(f"{'flipped' if view.flipped else 'not flipped'}, loss weight {view.loss_weight:g}")
    if view.weights is not None:
        lines.append(f"mask: {float(view.weights.mean()):.1%} of the picture counts; what does not is red")
    if view.custom_attributes:
        lines.append(f"custom attributes: {view.custom_attributes}")
    if view.shows_latents:
        lines.append("these are latents, not a picture: shown are their first three channels as red, green and blue")
    if view.absent:
        lines.append(f"there is no picture: {view.absent}")
    return lines


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
