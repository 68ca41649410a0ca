"""Work done in threads a little before its result is asked for."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """The function of each item, in order, computed in the pool `count` items before it is asked for."""
    computing: deque[Future[Result]] = deque()
    for item in items:
        computing.append(pool.submit(function, item))
        if len(computing) > count:
            yield computing.popleft().result()
    while computing:
        yield computing.popleft().result()
