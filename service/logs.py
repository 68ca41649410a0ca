"""The log of a job: what its stages printed, one after the other, by byte offset; whole or as it grows (server-sent events)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from service.jobs.states import STAGES
from service.masking import mask

TAIL_BYTES = 64 << 10  # what API objects carry
READ_AT_ONCE = 256 << 10
LONGEST_LINE = 64 << 10  # one without an end is shown in pieces
POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True)
class LogPart:
    """Lines of a log, and the offset after them: what to ask for next."""

    text: str
    next_offset: int


class JobLog:
    """The log of the job in this folder. Offsets count the bytes that the stages wrote; the text has fewer."""

    def __init__(self, job_folder: Path):
        self._paths = [job_folder / "stages" / f"{stage}.log" for stage in STAGES]

    def size(self) -> int:
        return sum(_size(path) for path in self._paths)

    def read(self, offset: int = 0, most: int = READ_AT_ONCE, to_the_end: bool = False) -> LogPart:
        """Whole lines from this offset on; `to_the_end`: nothing is written any more, the last line counts as it is."""
        offset = max(0, min(offset, self.size()))
        raw = self._raw(offset, most)
        end = raw.rfind(b"\n") + 1
        if not end and (len(raw) >= min(most, LONGEST_LINE) or to_the_end) or (to_the_end and offset + len(raw) >= self.size()):
            end = len(raw)
        return LogPart(shown(raw[:end]), offset + end)

    def tail(self, most: int = TAIL_BYTES) -> str:
        """The last lines, and what there is of the next one."""
        size = self.size()
        start = max(0, size - most)
        raw = self._raw(start, most)
        return shown(raw[raw.find(b"\n") + 1 :] if start else raw)

    def _raw(self, offset: int, most: int) -> bytes:
        parts: list[bytes] = []
        for path in self._paths:
            size = _size(path)
            if offset < size and most > 0:
                with path.open("rb") as file:
                    file.seek(offset)
                    parts.append(file.read(min(most, size - offset)))
                most -= len(parts[-1])
            offset = max(0, offset - size)
        return b"".join(parts)


def shown(raw: bytes) -> str:
    """As a terminal would show it in the end: of a line that was written over (a progress bar), what it said last. No secrets."""
    lines = raw.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")
    return mask("\n".join(_last_words(line) for line in lines))


def _last_words(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part.strip()), "") if "\r" in line else line


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def follow(log: JobLog, offset: int, is_over: Callable[[], bool], poll_seconds: float = POLL_SECONDS) -> AsyncIterator[str]:
    """Server-sent events: each has lines as its data and, as its id, the offset from which to go on (Last-Event-ID).

    `is_over` is asked before the log is read: what is written before the job ends is sent. Then comes the event `end`.
    """
    silent_seconds = 0.0
    while True:
        over = await run_sync(is_over)
        part = await run_sync(log.read, offset, READ_AT_ONCE, over)
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
            await anyio.sleep(poll_seconds)


def _event(part: LogPart) -> str:
    data = "".join(f"data: {line}\n" for line in part.text.removesuffix("\n").split("\n"))
    return f"id: {part.next_offset}\n{data}\n"
