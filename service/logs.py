"""The log of a job: what its stages printed, one after the other, by byte offset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.jobs.states import STAGES
from service.masking import mask

TAIL_BYTES = 64 << 10  # what API objects carry
READ_AT_ONCE = 256 << 10
LONGEST_LINE = 64 << 10  # one without an end is shown in pieces


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
