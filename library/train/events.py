"""events.jsonl: one line of JSON per event, for whatever watches a run (a service, a notebook, a person with `tail -f`)."""

from __future__ import annotations

import json
import math
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

VERSION = 1  # of the line format; raised when a field changes its meaning or goes


class EventLog:
    """Appends events of one process. Every line is {"v", "time", "event", ...} and reaches the file at once."""

    def __init__(self, run_folder: Path, rank: int):
        run_folder.mkdir(parents=True, exist_ok=True)
        self.path = run_folder / ("events.jsonl" if rank == 0 else f"events.rank{rank}.jsonl")
        self._file = self.path.open("a", encoding="utf-8")
        self._lock = threading.Lock()  # uploads report from a thread of their own

    def write(self, event: str, **facts: Any) -> None:
        line = {"v": VERSION, "time": round(time.time(), 3), "event": event, **facts}
        with self._lock, suppress(OSError):  # a full disk must not end a training; the next line is tried again
            self._file.write(json.dumps(_plain(line), ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    """JSON has no NaN and knows no paths."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value
