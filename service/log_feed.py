"""A log as it grows, as server-sent events. Those who follow the same log share the looks at it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from weakref import WeakValueDictionary

import anyio
from anyio.to_thread import run_sync

from service.logs import READ_AT_ONCE, JobLog, LogPart

POLL_SECONDS = 0.5
FRESH_SECONDS = POLL_SECONDS / 2
KEEP_ALIVE_SECONDS = 15.0


class LogFeed:
    """Looks at one log. A look that is younger than `fresh_seconds` serves all who stand at its offset."""

    def __init__(self, log: JobLog, is_over: Callable[[], bool], fresh_seconds: float = FRESH_SECONDS):
        self._log, self._is_over, self._fresh_seconds = log, is_over, fresh_seconds
        self._looks: dict[int, tuple[float, LogPart, bool]] = {}  # by offset: when it was, and what was seen
        self._one_at_a_time = anyio.Lock()

    async def look(self, offset: int) -> tuple[LogPart, bool]:
        """What comes after this offset, and whether the job is over: asked before the log is read, so that its last words are in it."""
        async with self._one_at_a_time:
            oldest = time.monotonic() - self._fresh_seconds
            self._looks = {where: seen for where, seen in self._looks.items() if seen[0] > oldest}
            if offset not in self._looks:
                over = await run_sync(self._is_over)
                part = await run_sync(self._log.read, offset, READ_AT_ONCE, over)
                self._looks[offset] = (time.monotonic(), part, over)
            _, part, over = self._looks[offset]
            return part, over


class LogFeeds:
    """The feeds of jobs whose logs are followed now: a feed goes with the last who follows it."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[str, LogFeed] = WeakValueDictionary()

    def of(self, job_id: str, make: Callable[[], LogFeed]) -> LogFeed:
        """That of this job, made if nobody follows it yet. To be called on the event loop."""
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = make()
        return feed


async def follow(feed: LogFeed, offset: int, poll_seconds: float = POLL_SECONDS) -> AsyncIterator[str]:
    """Server-sent events: each has lines as its data and, as its id, the offset from which to go on (Last-Event-ID).

    When the job is over and all of its log is sent, the event `end` comes.
    """
    silent_seconds = 0.0
    while True:
        part, over = await feed.look(offset)
        if part.next_offset > offset:
            offset, silent_seconds = part.next_offset, 0.0
            yield _event(part)
        elif over:
            yield f"id: {offset}\nevent: end\ndata:\n\n"
            return
        else:
            silent_seconds += poll_seconds
            if silent_seconds >= KEEP_ALIVE_SECONDS:
                silent_seconds = 0.0
                yield ": still here\n\n"
            await anyio.sleep(poll_seconds * random.uniform(0.5, 1.5))  # those who began together are not all served at once


def _event(part: LogPart) -> str:
    data = "".join(f"data: {line}\n" for line in part.text.removesuffix("\n").split("\n"))
    return f"id: {part.next_offset}\n{data}\n"
