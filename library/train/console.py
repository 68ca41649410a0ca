"""What a person sees: messages and the progress bar, on one console so that they do not tear each other apart."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from library.config.options import LoggingOptions
from library.errors import UserError

log = logging.getLogger(__name__)
OURS = ("library", "networks")  # the packages whose messages are shown
console = Console(stderr=True)
LINES_PER_RUN = 50  # of progress, where the output is a file or a pipe and no bar can be drawn


def set_up_logging(options: LoggingOptions, is_main: bool) -> None:
    """Messages of this process: to the console (rich or simple), or to a file. Other processes report warnings only."""
    handler: logging.Handler
    if options.console_log_file:
        handler = _file_handler(options.console_log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    elif options.console_log_simple or not console.is_terminal:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = RichHandler(console=console, show_path=False, markup=False)
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel((options.console_log_level or "INFO") if is_main else "WARNING")


def _file_handler(path: str) -> logging.Handler:
    try:
        return logging.FileHandler(path, mode="w", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"console_log_file {path} cannot be written: {reason}; name a file in a folder that exists") from error


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.2f} it/s")


class ProgressBar:
    """Step, loss, learning rate, steps per second and time left. A line now and then where there is no terminal."""

    def __init__(self, first_step: int, last_step: int, is_main: bool):
        self.first_step, self.last_step = first_step, last_step
        self._bar = Progress(
            TextColumn("steps"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}{task.fields[validation]}  lr {task.fields[rate]:.2e}"),
            _Speed(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not is_main or not console.is_terminal,
        )
        self._task = self._bar.add_task("steps", total=last_step, completed=first_step - 1, loss=0.0, validation="", rate=0.0)
        self._validation = ""
        self._writes_lines = is_main and not console.is_terminal
        self._line_every = max(1, (last_step - first_step + 1) // LINES_PER_RUN)

    def __enter__(self) -> ProgressBar:
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def show_validation(self, loss: float) -> None:
        """The loss that was measured last, from now on."""
        self._validation = f"  validation {loss:.4f}"
        self._bar.update(self._task, validation=self._validation)

    def update(self, step: int, loss: float, rate: float) -> None:
        self._bar.update(self._task, completed=step, loss=loss, rate=rate)
        done = step - self.first_step + 1
        if self._writes_lines and (done % self._line_every == 0 or step == self.last_step):
            speed = done / max(time.monotonic() - self._started, 1e-9)
            left = timedelta(seconds=round((self.last_step - step) / speed))
            log.info(
                "step %d/%d  loss %.4f%s  lr %.2e  %.2f it/s  %s left",
                step, self.last_step, loss, self._validation, rate, speed, left,
            )  # fmt: skip


class CountBar:
    """How many of how many are done. A line now and then where there is no terminal."""

    def __init__(self, what: str, total: int, is_main: bool):
        self.done, self._what, self._total = 0, what, total
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not is_main or not console.is_terminal)
        self._task = self._bar.add_task(what, total=total)
        self._writes_lines = is_main and not console.is_terminal
        self._line_every = max(1, total // LINES_PER_RUN)

    def __enter__(self) -> CountBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        """`count` more are done."""
        before, self.done = self.done, self.done + count
        self._bar.update(self._task, completed=self.done)
        if self._writes_lines and (self.done // self._line_every > before // self._line_every or self.done == self._total):
            log.info("%s %d/%d", self._what, self.done, self._total)
