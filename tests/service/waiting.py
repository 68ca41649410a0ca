"""Waiting for what other threads and processes do."""
from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 60.0


def wait_until(what: Callable[[], object]) -> None:
    """AssertionError if it takes too long."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
