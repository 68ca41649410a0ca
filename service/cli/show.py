"""What is printed: text or JSON on stdout, progress on stderr where somebody looks at it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int], None]


def tell_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def tell_columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table that other programs can read, too: columns two blanks apart."""
    texts = [list(head), *([" ".join(str("-" if cell is None else cell).split()) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in texts) for place in range(len(head))]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def tell_fields(values: Mapping[str, object]) -> None:
    """A line for each that has a value."""
    shown = {name: value for name, value in values.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {value}")


def note(text: str) -> None:
    """On stderr: no part of the answer."""
    print(text, file=sys.stderr)


def somebody_looks(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


@contextmanager
def bytes_bar(title: str, total: int | None, quiet: bool) -> Iterator[Advance]:
    """A bar that is told how many bytes have gone over; `total` None: nobody knows."""
    if not somebody_looks(quiet):
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def steps_bar(quiet: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar that is told a job's `progress`. Lines printed meanwhile stand above it."""
    if not somebody_looks(quiet):
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    redirected = {"redirect_stdout": sys.stdout.isatty(), "redirect_stderr": False}  # what is piped stays in its pipe
    with Progress(*columns, console=Console(stderr=True), **redirected) as bar:  # type: ignore[arg-type]
        task = bar.add_task("", total=None, figures="")

        def tell(progress: Mapping[str, Any]) -> None:
            bar.update(
                task,
                description=str(progress.get("stage", "")),
                completed=progress.get("step") or 0,
                total=progress.get("total_steps"),
                figures=figures_of(progress),
            )

        yield tell


def figures_of(progress: Mapping[str, Any]) -> str:
    """Loss, speed and time left, as far as they are known."""
    texts = []
    if isinstance(progress.get("loss"), int | float):
        texts.append(f"loss {progress['loss']:.4f}")
    if isinstance(progress.get("speed"), int | float):
        texts.append(f"{progress['speed']:.2f} steps/s")
    if isinstance(progress.get("eta_s"), int | float):
        minutes, seconds = divmod(round(progress["eta_s"]), 60)
        hours, minutes = divmod(minutes, 60)
        texts.append(f"{hours}:{minutes:02}:{seconds:02} left")
    return ", ".join(texts)
