"""Many files are looked at in turn or in threads, with the same results; which of the two depends on who is waiting."""
from __future__ import annotations

import threading
from itertools import count

import pytest

from library.data import scan
from library.errors import UserError

ITEMS = list(range(1000))


def doubled(number: int) -> int:
    if number % 100 == 7:
        raise UserError(f"{number} is bad")
    return 2 * number


@pytest.mark.parametrize("apply", [scan.read_each, scan.in_threads])
def test_results_and_mistakes_stand_in_order(apply):
    found = apply(doubled, ITEMS)
    assert len(found) == len(ITEMS)
    for number, result in zip(ITEMS, found, strict=True):
        assert str(result) == f"{number} is bad" if number % 100 == 7 else result == 2 * number
    assert apply(doubled, []) == []


@pytest.mark.parametrize(("processor_seconds", "in_other_threads"), [(1.0, 0), (0.3, 0), (0.2, len(ITEMS) - 256)])
def test_threads_help_from_where_the_disk_makes_us_wait(monkeypatch, processor_seconds, in_other_threads):
    """Each look at the clock is a second after the one before, for which the processor worked as long as said."""
    seconds, worked = count(), count()
    monkeypatch.setattr(scan, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(scan, "thread_time", lambda: next(worked) * processor_seconds)
    threads = scan.read_each(lambda item: threading.get_ident(), ITEMS)
    assert sum(thread != threading.get_ident() for thread in threads) == in_other_threads
