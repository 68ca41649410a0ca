"""What is kept of each run in a folder of its own: spec.json, started.json, cancel.json, exit.json. Standard library only.

cancel.json and exit.json have their places on the disk from the start: they can be written when the disk is full.
"""
from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.executors.base import GRACE_SECONDS, STOPPED_CODE, Handle, Limits, Spec, Status, checked

RESERVED_BYTES = 4096
BEFORE_START = "canceled before it started"
SECONDS_TO_START = 60.0  # after which what was asked to start, and did not, never will


class Record:
    """The folder of one run. The job itself cannot write here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = folder / "started.json"
        self.errors = folder / "runner.log"  # what the runner itself complains of
        self._spec, self._exit = folder / "spec.json", folder / "exit.json"
        self._cancel = folder / "cancel.json"

    # --- what is to run ---

    def write_spec(self, spec: Spec) -> None:
        """Keep what is to run: the first one to say it counts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._spec.exists():
            _reserve(self._exit)
            _reserve(self._cancel)
            values = {**spec._asdict(), "limits": spec.limits._asdict()}
            write_json(self._spec, {name: _plain(value) for name, value in values.items()})

    def spec(self) -> Spec | None:
        """What is to run."""
        values = read_json(self._spec)
        if values is None:
            return None
        paths = {name: Path(values[name]) for name in ("cwd", "log", "folder")}
        folders = {name: tuple(map(Path, values[name])) for name in ("readable", "hidden")}
        return Spec(**{**values, **paths, **folders, "argv": tuple(values["argv"]), "limits": Limits(**values["limits"])})

    # --- what the runner says ---

    def claim(self, **facts: Any) -> bool:
        """Say who runs it; False where another one has said so: of any number of runners, one gets it."""
        own = self.folder / f"started.json.{os.getpid()}"
        write_json(own, facts)
        try:
            if os.name == "nt":
                own.rename(self.started)  # fails where there is one
            else:
                os.link(own, self.started)
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def start(self) -> dict[str, Any] | None:
        """Who runs it."""
        return read_json(self.started)

    def write_exit(self, status: Status) -> None:
        _write_in_place(self._exit, {**status._asdict(), "reason": status.reason[:500], "time": time.time()})

    def exit(self) -> Status | None:
        """How it ended."""
        facts = read_json(self._exit)
        return Status(*(facts[name] for name in Status._fields)) if facts else None

    def write_node(self, node: str, told: str) -> None:
        """How it ended by itself on one node of several, which that node says, if the disk has room for it."""
        with suppress(OSError):
            self._node(node).write_text(told, encoding="utf-8")

    def nodes(self, count: int) -> list[str]:
        """The same of all of them; nothing of one that was ended. Files are opened by name: a shared disk lists new ones late."""
        return [text_of(self._node(str(node))) for node in range(count)]

    def _node(self, node: str) -> Path:
        return self.folder / f"node-{node}.txt"

    # --- what the executor says ---

    def ask_to_end(self, grace: float) -> None:
        """The runner sees it within a moment; one that has not started will not run anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._cancel.exists():
            _write_in_place(self._cancel, {"grace": grace})

    def asked_to_end(self) -> float | None:
        """The seconds of grace, if somebody asked."""
        facts = read_json(self._cancel)
        return float(facts.get("grace", GRACE_SECONDS)) if facts else None

    def canceled_before_start(self) -> Status | None:
        """Of what no runner has claimed: if one does, it will run nothing."""
        return Status("ended", STOPPED_CODE, BEFORE_START) if self._cancel.exists() else None

    def is_fresh(self) -> bool:
        """Whether it was submitted a moment ago, so that a runner may be about to claim it."""
        try:
            return time.time() - self._spec.stat().st_mtime < SECONDS_TO_START
        except FileNotFoundError:
            return False

    def logs(self, offset: int, most: int) -> bytes:
        """Bytes of the log; none while there is no log."""
        spec = self.spec()
        if spec is None:
            return b""
        try:
            with spec.log.open("rb") as file:
                file.seek(offset)
                return file.read(most)
        except FileNotFoundError:
            return b""


def record_of(folder: Path, handle: Handle) -> Record:
    return Record(folder / checked(handle))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _reserved(path: Path) -> Path:
    return path.with_name(f"{path.name}.reserved")


def _reserve(path: Path) -> None:
    """Once: somebody may be writing there already."""
    try:
        with _reserved(path).open("xb") as file:
            file.write(b" " * RESERVED_BYTES)
    except FileExistsError:
        return
    except OSError:
        _reserved(path).unlink(missing_ok=True)
        raise


def _write_in_place(path: Path, values: dict[str, Any]) -> None:
    """Where room was reserved for it, else anew; what is left of the reserved blanks does not trouble JSON."""
    try:
        with _reserved(path).open("r+b") as file:
            file.write(json.dumps(values).encode())
            file.flush()
            os.fsync(file.fileno())
        _reserved(path).replace(path)
    except FileNotFoundError:  # nothing was, or somebody has just written the same
        write_json(path, values)


def text_of(path: Path) -> str:
    """Nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
