"""The loss of a training as the chart shows it: from the events of all its runs, in the order of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from service.events import EventFile
from service.training.job_folder import JobFolder

MOST_POINTS = 2000  # more are averaged: no screen has more columns
TABLE_ROWS = 25


class Point(NamedTuple):
    step: int
    loss: float | None  # None: it was no number
    rate: float | None  # the largest learning rate of the parameter groups


def point_of(event: Mapping[str, Any]) -> Point | None:
    step = event.get("step")
    if event.get("event") != "step" or not isinstance(step, int) or isinstance(step, bool):
        return None
    rates = event.get("lr")
    values = map(_number, rates.values() if isinstance(rates, Mapping) else [rates])
    return Point(step, _number(event.get("loss")), max((value for value in values if value is not None), default=None))


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def merged(points: list[Point], further: Iterable[Point]) -> list[Point]:
    """A run that was resumed goes back to its last saved step: what it does again counts."""
    for point in further:
        while points and points[-1].step >= point.step:
            points.pop()
        points.append(point)
    return points


def all_points(folder: JobFolder) -> list[Point]:
    found: list[Point] = []
    for path in folder.events():
        merged(found, filter(None, map(point_of, EventFile(path).read())))
    return found


def thinned(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """Neighbours averaged to one, so that no more are left; each stands at the last step of those it is made of."""
    each = -(-len(points) // most)
    if each <= 1:
        return points
    groups = (points[begin : begin + each] for begin in range(0, len(points), each))
    return [Point(group[-1].step, _mean(point.loss for point in group), group[-1].rate) for group in groups]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def as_columns(points: list[Point]) -> dict[str, list[Any]]:
    """As the chart takes them."""
    return {"step": [p.step for p in points], "loss": [p.loss for p in points], "rate": [p.rate for p in points]}


class LossFollower:
    """New points of a training that goes on, from its newest run."""

    def __init__(self, folder: JobFolder, after_step: int):
        self._folder, self._after_step = folder, after_step
        self._file: EventFile | None = None

    def read(self) -> list[Point]:
        """Those since the last call; at the first one, those after the step that the page has."""
        files = self._folder.events()
        if not files:
            return []
        is_first = self._file is None
        if self._file is None or self._file.path != files[-1]:
            self._file = EventFile(files[-1])
        points = [point for point in map(point_of, self._file.read()) if point is not None]
        return [point for point in points if point.step > self._after_step] if is_first else points
