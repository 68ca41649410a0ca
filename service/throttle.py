"""So many a minute: buckets that fill steadily, one for each name, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST_NAMES = 10_000  # full buckets are dropped when there are more


class Throttle:
    """A bucket of `per_minute` for each name, that fills in a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic):
        self._size, self._clock = float(per_minute), clock
        self._levels: dict[str, tuple[float, float]] = {}  # by name: how much was there when
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Seconds until there is one for this name; 0: now."""
        with self._lock:
            return self._seconds_until_one(self._level(name))

    def take(self, name: str) -> float:
        """Take one; or take none and say for how many seconds there will be none."""
        with self._lock:
            level = self._level(name)
            seconds = self._seconds_until_one(level)
            if seconds == 0:
                if len(self._levels) >= MOST_NAMES:
                    self._drop_full()
                self._levels[name] = (level - 1, self._clock())
            return seconds

    def _level(self, name: str) -> float:
        level, then = self._levels.get(name, (self._size, 0.0))
        return min(self._size, level + (self._clock() - then) * self._size / 60)

    def _seconds_until_one(self, level: float) -> float:
        return max(0.0, (1 - level) * 60 / self._size)

    def _drop_full(self) -> None:
        self._levels = {name: kept for name, kept in self._levels.items() if self._level(name) < self._size}
