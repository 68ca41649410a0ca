"""Saves when it is due: the new files complete and in place first, then the old ones go; a failure is reported, never fatal."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from library.checkpoint.files import atomic_directory, atomic_write, free_space_check, remove, set_aside
from library.checkpoint.ledger import Entry, Ledger
from library.checkpoint.naming import (
    Kind,
    Moment,
    RunLength,
    SavePoint,
    due_points,
    retention_bound,
    saves_folders,
    state_due,
    state_name,
    weights_name,
)
from library.checkpoint.uploads import Uploads

if TYPE_CHECKING:
    import torch

    from library.config.options import SavingOptions

ROOM_TO_SPARE = 1.05  # of the expected size: metadata and file system take their share


class Report(Protocol):
    """Receives events: `saved`, `save_failed`, `save_refused`, `set_aside`, `removed`, `remove_failed`."""

    def __call__(self, event: str, **facts: Any) -> None: ...


class Write(Protocol):
    """Writes trained weights to a file, or into an empty folder; dtype None: as they are trained."""

    def __call__(self, path: Path, dtype: torch.dtype | None, metadata: dict[str, str], /) -> None: ...


@dataclass(frozen=True)
class Sources:
    """Where the saver gets what it saves."""

    trained: Mapping[Kind, Write]  # what writes each kind of file with trained weights
    write_state: Callable[[Path, SavePoint], None]  # fills an empty folder
    metadata: Callable[[SavePoint, Kind], dict[str, str]]
    has_nan: Callable[[], bool]
    # Inside, the main process finds everything whole. Every process enters it; true: with what a state holds besides weights.
    whole: Callable[[bool], AbstractContextManager[None]] = lambda with_state: nullcontext()


class _Placing:
    """Puts a finished file into its place. At every instant the ledger knows what is ours, and old or new is there."""

    def __init__(self, ledger: Ledger, path: Path, kind: Kind, point: SavePoint):
        self.ledger = ledger
        self.path = path
        self.kind = kind
        self.point = point
        self.entry: Entry | None = None
        self.stranger: Path | None = None  # another run's file under its new name
        self._predecessor: Path | None = None  # our own older folder, until it can go

    def make_way(self, temporary: Path) -> None:
        is_own = self.ledger.owns(self.path)
        self.entry = self.ledger.announce(self.path, temporary, self.kind, self.point)
        if not is_own:
            self.stranger = set_aside(self.path)
        elif self.path.is_dir():  # a rename replaces a file but not a folder
            self._predecessor = set_aside(self.path)

    def finish(self) -> Entry:
        assert self.entry is not None, "make_way has been called"
        with suppress(OSError):  # the new file is there and announced, which is what matters
            self.ledger.settle(self.entry)
            if self._predecessor is not None:
                remove(self._predecessor)
        return self.entry

    def give_up(self) -> None:
        if self.entry is not None:
            with suppress(OSError):
                self.ledger.forget(self.entry)


class Saver:
    """Writes the files of one run. Make it in every process: only the one with `is_main` touches the disk."""

    def __init__(
        self,
        options: SavingOptions,
        length: RunLength,
        ledger: Ledger,
        sources: Sources,
        report: Report,
        expected_bytes: dict[Kind, int],
        is_main: bool = True,
        uploads: Uploads | None = None,
    ):
        self.options = options
        self.length = length
        self.ledger = ledger
        self.sources = sources
        self.report = report
        self.expected_bytes = dict(expected_bytes)  # of the next save; after the first, what that one took
        self.is_main = is_main
        self._dtype = save_dtype(options.save_precision)
        self.uploads = uploads
        self._complete: set[tuple[Kind, SavePoint]] = set()
        self._held: dict[tuple[Kind, Moment], SavePoint] = {}  # the last ones whose older files wait for their uploads

    def due(self, step: int) -> bool:
        """Whether `save_step` has anything to do after this step; the same answer in every process."""
        return bool(due_points(self.options, self.length, step))

    def save_step(self, step: int) -> bool:
        """Saves what is due after this step: step, epoch, final files. False if any of it failed."""
        saved = [self._save(point, state_due(self.options, point)) for point in due_points(self.options, self.length, step)]
        return all(saved)

    def save_best(self, step: int) -> bool:
        """Saves the weights of this step as the best so far; those that were the best until now go."""
        return self._save(SavePoint("best", step, self.length.epoch_of(step)), with_state=False)

    def end_at(self, step: int) -> None:
        """From now on the run is one whose last step is this one."""
        self.length = replace(self.length, last_step=step)

    def save_interrupted(self, step: int) -> bool:
        """Saves weights and state under the step's name, so that a stopped run can go on. What is there is not written twice."""
        return self._save(SavePoint("step", step, self.length.epoch_of(step)), with_state=True)

    def _save(self, point: SavePoint, with_state: bool) -> bool:
        with self.sources.whole(with_state):
            return not self.is_main or self._save_here(point, with_state)

    def _save_here(self, point: SavePoint, with_state: bool) -> bool:
        if self.sources.has_nan():
            self.report("save_refused", step=point.step, epoch=point.epoch, reason="the weights are not finite numbers")
            return False
        trained = list(self.sources.trained)
        kinds: list[Kind] = [*trained, "state"] if with_state else trained
        complete = [kind for kind in kinds if (kind, point) in self._complete or self._write(kind, point)]
        if self.uploads is not None and not self.uploads.in_background:
            self.uploads.wait()
        for kind in complete:
            if kind == "state" or set(trained) <= set(complete):  # files of weights are of use together
                self._remove_expired(kind, point)
        return complete == kinds

    def finish(self) -> None:
        """Waits for the uploads, and removes what they kept here."""
        if self.uploads is not None:
            self.uploads.finish()
            for (kind, _), point in self._held.items():
                self._remove_expired(kind, point)

    def _write(self, kind: Kind, point: SavePoint) -> bool:
        name = state_name(self.options, point) if kind == "state" else weights_name(self.options, point, kind)
        path = self.ledger.output_dir / name
        try:
            free_space_check(path.parent, int(self.expected_bytes[kind] * ROOM_TO_SPARE))
            entry = self._put(path, kind, point)
        except Exception as error:  # whatever a disk, a library or a network module comes up with: the training is worth more
            self.report("save_failed", kind=kind, path=str(path), step=point.step, reason=f"{type(error).__name__}: {error}")
            return False
        self.expected_bytes[kind] = entry.size
        self._complete.add((kind, point))
        self.report("saved", kind=kind, path=str(path), step=point.step, epoch=point.epoch, bytes=entry.size)
        if self.uploads is not None and (kind != "state" or self.uploads.with_states):
            self.uploads.add(path)
        return True

    def _put(self, path: Path, kind: Kind, point: SavePoint) -> Entry:
        """Writes beside `path`; once that is complete a stranger's file is set aside, our own is replaced."""
        placing = _Placing(self.ledger, path, kind, point)
        try:
            whole = atomic_directory if kind == "state" or saves_folders(self.options) else atomic_write
            with whole(path, before_rename=placing.make_way) as temporary:
                if kind != "state":
                    self.sources.trained[kind](temporary, self._dtype, self.sources.metadata(point, kind))
                else:
                    self.sources.write_state(temporary, point)
            return placing.finish()
        except BaseException:
            placing.give_up()
            raise
        finally:
            if placing.stranger is not None:
                self.report("set_aside", path=str(path), now=str(placing.stranger))

    def _remove_expired(self, kind: Kind, point: SavePoint) -> None:
        bound = retention_bound(self.options, self.length, kind, point)
        for entry in self.ledger.entries(kind, point.moment):
            if entry.point.number > bound:
                continue
            path = self.ledger.absolute(entry)
            if self.uploads is not None and self.uploads.needs(path):
                self._held[kind, point.moment] = point
                continue
            try:
                if self.ledger.owns(path):
                    remove(path)
                    self.report("removed", kind=kind, path=str(path))
                self.ledger.forget(entry)
            except OSError as error:
                self.report("remove_failed", kind=kind, path=str(path), reason=str(error))


def save_dtype(precision: str | None) -> torch.dtype | None:
    """The dtype that --save_precision names."""
    import torch

    return {None: None, "float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
