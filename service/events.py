"""From the trainer's events.jsonl to progress: step, loss, steps a second, time left."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

SPEED_STEPS = 20  # the speed is that of the last so many steps
READ_AT_ONCE = 1 << 20  # bytes


class EventFile:
    """Follows a file of events while it grows. A line that is not whole yet waits."""

    def __init__(self, path: Path):
        self.path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The events since the last call; lines that are no events, such as what a full disk has cut, are left out."""
        events = []
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while chunk := file.read(READ_AT_ONCE):
                    whole = chunk[: chunk.rfind(b"\n") + 1]
                    if not whole:
                        break
                    self._offset += len(whole)
                    file.seek(self._offset)
                    events += [event for line in whole.splitlines() if (event := _event(line)) is not None]
        except FileNotFoundError:
            pass
        return events


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


class TrainingProgress:
    """What the events of a training say of where it is. After a resume it goes on with the file of the new run."""

    def __init__(self) -> None:
        self._file: EventFile | None = None
        self._times: deque[tuple[int, float]] = deque(maxlen=SPEED_STEPS + 1)  # of steps: number and time
        self.now: dict[str, Any] = {}

    def update(self, path: Path | None) -> bool:
        """Read on in the newest of the event files; whether anything has changed."""
        if path is None:
            return False
        if self._file is None or self._file.path != path:
            self._file = EventFile(path)
            self._times.clear()
        events = self._file.read()
        for event in events:
            self._take(event)
        return bool(events)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            self.now |= {"step": event.get("step", 0), "total_steps": event.get("last_step")}
        elif kind == "step" and isinstance(event.get("step"), int) and isinstance(event.get("time"), (int, float)):
            self.now |= {"step": event["step"], "epoch": event.get("epoch"), "loss": event.get("loss")}
            self.now |= {"average_loss": event.get("average_loss"), "lr": event.get("lr")}
            if "gpu_memory_gib" in event:
                self.now["gpu_memory_gib"] = event["gpu_memory_gib"]
            self._times.append((event["step"], event["time"]))
            self.now |= self._speed()
        elif kind == "sampled":
            self.now["samples"] = self.now.get("samples", 0) + int(event.get("count") or 0)
        elif kind == "end":
            self.now["eta_s"] = 0.0

    def _speed(self) -> dict[str, Any]:
        (first_step, first_time), (last_step, last_time) = self._times[0], self._times[-1]
        if last_time <= first_time:
            return {}
        speed = (last_step - first_step) / (last_time - first_time)
        total = self.now.get("total_steps")
        eta = max(0, total - last_step) / speed if isinstance(total, int) and speed > 0 else None
        return {"speed": round(speed, 4), "eta_s": None if eta is None else round(eta, 1)}
