"""Untrusted pictures: known by their first bytes, then read and written anew by a worker process with limits."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from service.storage.space import DiskFull

_ROOT = Path(__file__).resolve().parents[2]
_PASSED_ON = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LANG", "LC_ALL")  # of the environment; it may hold secrets otherwise
_START_SECONDS = 60


class BadPicture(Exception):
    """A picture that is not taken: why, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be, and may cost us."""

    max_pixels: int = 50_000_000
    least_side: int = 64
    largest_side: int | None = None  # of what is written: a larger picture is written smaller; None: as it is
    memory_bytes: int = 2 << 30  # address space of the worker
    cpu_seconds: int = 20  # for one picture
    wall_seconds: float = 60


USUAL = PictureLimits()


@dataclass(frozen=True)
class Picture:
    """What a picture was; the file that was written is a PNG in any case. Width and height are those of the upright picture."""

    width: int
    height: int
    format: str


def sniff(head: bytes) -> str | None:
    """The format by the first 12 bytes of a file: PNG, JPEG, WEBP, BMP, or none of those that are taken."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if head.startswith(b"BM") else None


class PictureChecker:
    """A worker process for many pictures; one that a picture killed is replaced. To be used in a with statement."""

    def __init__(self, limits: PictureLimits = USUAL):
        self._limits = limits
        self._worker: subprocess.Popen[str] | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  (what workers write to stderr, for as long as this object lives)

    def __enter__(self) -> PictureChecker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        self._complaints.close()

    def rewrite(self, source: Path, destination: Path) -> Picture:
        """Writes the picture's pixels to `destination` as a PNG. Raises BadPicture, or DiskFull."""
        with source.open("rb") as file:
            kind = sniff(file.read(12))
        if kind is None:
            raise BadPicture("its content is not png, jpeg, webp or bmp")
        found = self._ask(json.dumps({"source": str(source.resolve()), "destination": str(destination.resolve())}))
        problem = found.get("problem") if found else "it needs too much memory or time"
        if found and not problem and found["format"] != kind:
            problem = "it claims two formats at once"
        if not found or problem:
            destination.unlink(missing_ok=True)  # half of it may be there
            if found and found.get("is_full"):
                raise DiskFull
            raise BadPicture(problem)
        return Picture(found["width"], found["height"], found["format"])

    def _ask(self, line: str) -> dict[str, Any] | None:
        """The worker's answer; None if it died or had to be ended."""
        worker = self._worker or self._start()
        found = _exchange(worker, line, self._limits.wall_seconds)
        if found is None:
            self._stop()
        return found

    def _start(self) -> subprocess.Popen[str]:
        limits = {name: getattr(self._limits, name) for name in ("max_pixels", "least_side", "largest_side", "memory_bytes", "cpu_seconds")}
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "service.intake.picture_worker", json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"},
            encoding="utf-8",
        )
        if _exchange(self._worker, None, _START_SECONDS) is None:
            self._complaints.seek(0)
            complaint = self._complaints.read().decode("utf-8", "replace").strip()[-500:]
            self._stop()
            raise RuntimeError(f"the process that reads pictures does not start: {complaint}")
        return self._worker

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None


def _exchange(worker: subprocess.Popen[str], line: str | None, seconds: float) -> dict[str, Any] | None:
    """Sends a line and reads one; None if the process ends first, which it does after so many seconds."""
    assert worker.stdin is not None and worker.stdout is not None
    timer = threading.Timer(seconds, worker.kill)
    timer.start()
    try:
        if line is not None:
            worker.stdin.write(line + "\n")
            worker.stdin.flush()
        reply = worker.stdout.readline()
        found: dict[str, Any] = json.loads(reply)
        return found
    except (BrokenPipeError, ConnectionError, json.JSONDecodeError):
        return None
    finally:
        timer.cancel()
