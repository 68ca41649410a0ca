"""How a job ended: its exit code, and one line that says why. Standard library only."""
from __future__ import annotations

import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from service.storage.space import DiskFull

STOPPED_CODES = (130, 143)  # after SIGINT and SIGTERM
USER_MISTAKE_CODE = 2
DISK_FULL_CODE = 74  # of a runner that could not even say that it is there
LOG_END_BYTES = 1 << 16
LONGEST_QUOTE = 300
LEAST_FREE_BYTES = 1 << 16  # with less, nothing can be written, nor can the job have told so
DISK_FULL = str(DiskFull())
NO_ROOM = (b"No space left on device", b"Disk quota exceeded", b"database or disk is full")
OF_LAUNCHERS = b"CalledProcessError|ChildFailedError"  # say again what the training said
RAISED = re.compile(rb"^(?:\[rank\d+\]: )?((?:\w+\.)*(?!" + OF_LAUNCHERS + rb")\w*(?:Error|Exception)\b.*)$", re.MULTILINE)
NO_MEMORY = (  # the first: as our trainings say it
    *(b"error: memory is used up", b"OutOfMemoryError", b"CUDA out of memory"),
    *(b"not enough memory: you tried to allocate", b"\nMemoryError"),
)


def exit_code_of(code: int, *told: str) -> int:
    """The code of the training where launchers stand before it: of a process that failed, else of a launcher that did, else of
    a process that was stopped. `told`: by each node, in lines: "pid 12" and "exit 2" of its processes, "launcher 1"."""
    lines = "\n".join(told).splitlines()
    exits, launchers = _codes(lines, "exit "), _codes(lines, "launcher ")
    processes = sum(1 for line in lines if line.startswith("pid "))
    all_told = bool(exits) and len(exits) == processes
    failed = [number for number in (exits if all_told else exits + launchers) if number not in (0, *STOPPED_CODES)]
    if failed:
        return failed[0]
    return max(exits) if all_told else code


def _codes(lines: list[str], beginning: str) -> list[int]:
    numbers = [line.removeprefix(beginning) for line in lines if line.startswith(beginning)]
    return [int(number) for number in numbers if number.isdecimal()]


def explanation(code: int, log: Path) -> str:
    """Why it ended with this code, in one line; empty for 0."""
    if code == 0:
        return ""
    end = end_of(log)
    if any(text in end for text in NO_MEMORY):
        return "memory is used up: a smaller batch or resolution, or a larger machine, would help"
    if code not in STOPPED_CODES and (any(text in end for text in NO_ROOM) or not _has_room(log)):
        return DISK_FULL
    if code == USER_MISTAKE_CODE:
        return "a mistake in what it was given: the end of its log says which"
    if code == 128 + 9:
        return "killed by SIGKILL, as the system does when memory is used up"
    with suppress(ValueError):
        if code > 128:
            return f"killed by {signal.Signals(code - 128).name}"
    raised = RAISED.findall(end)
    last = raised[-1].decode("utf-8", errors="replace").strip()[:LONGEST_QUOTE] if raised else ""
    return f"it failed with exit code {code}" + (f": {last}" if last else "")


def _has_room(log: Path) -> bool:
    try:
        return shutil.disk_usage(log.parent).free >= LEAST_FREE_BYTES
    except OSError:
        return True  # its folder is gone, which is another story


def end_of(log: Path) -> bytes:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END_BYTES))
        return file.read()
    return b""
