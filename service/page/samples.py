"""The sample pictures of a training: a row for each prompt and seed, a column for each time they were drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.training.job_folder import OUTPUT_NAME, JobFolder

NAME = re.compile(rf"(?:{OUTPUT_NAME}_)?(e?)(\d{{6}})_(\d{{2,4}})_(\d{{14}})(?:_(\d{{1,20}}))?\.png")

BEFORE = (True, 0)  # epoch 0: before the first step


@dataclass(frozen=True)
class Sample:
    """A picture. `is_epoch`: `when` counts epochs, not steps."""

    name: str
    is_epoch: bool
    when: int
    index: int
    drawn_at: str
    seed: int | None

    @property
    def time(self) -> tuple[bool, int]:
        return (self.is_epoch, self.when)


@dataclass(frozen=True)
class Row:
    prompt: str
    seed: int | None
    pictures: tuple[Sample | None, ...]  # by column; None: none was drawn then


@dataclass(frozen=True)
class Gallery:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        return sum(sample is not None for row in self.rows for sample in row.pictures)


def read_name(name: str) -> Sample | None:
    """What the name of a picture says; None for what is none, such as the contact sheet."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    epoch, when, index, drawn_at, seed = found.groups()
    return Sample(name, bool(epoch), int(when), int(index), drawn_at, None if seed is None else int(seed))


def gallery(folder: JobFolder, resolved: Mapping[str, Any] | None) -> Gallery:
    """Of a picture that was drawn twice, as after a resume, the newer one."""
    samples = [read_name(path.name) for path in sorted(folder.samples.glob("*.png"))]
    newest: dict[tuple[int, tuple[bool, int]], Sample] = {}
    for sample in filter(None, samples):
        place = (sample.index, sample.time)
        if place not in newest or newest[place].drawn_at < sample.drawn_at:
            newest[place] = sample
    times = sorted({time for _, time in newest}, key=lambda time: (time != BEFORE, time))
    prompt = str((resolved or {}).get("sample_prompt") or "")
    rows = []
    for index in sorted({index for index, _ in newest}):
        pictures = tuple(newest.get((index, time)) for time in times)
        rows.append(Row(prompt, next((one.seed for one in pictures if one), None), pictures))
    return Gallery(tuple(_heading(*time) for time in times), tuple(rows))


def newest(folder: JobFolder, most: int = 1) -> list[str]:
    """The names of the pictures that were drawn last, those of the first prompts first."""
    found = [sample for path in folder.samples.glob("*.png") if (sample := read_name(path.name))]
    last = max((sample.time for sample in found), default=None)
    return [sample.name for sample in sorted(found, key=lambda one: one.index) if sample.time == last][:most]


def _heading(is_epoch: bool, when: int) -> str:
    if (is_epoch, when) == BEFORE:
        return "before the first step"
    return f"epoch {when}" if is_epoch else f"step {when:,}"
