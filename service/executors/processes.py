"""Processes by their identity: which one it is, whether it lives, what it has started, and ending all of it. Standard library only."""
from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
HAS_PROC = sys.platform.startswith("linux")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
HANDLE_VARIABLE = "TADPOLE_HANDLE"  # in the environment of all that a job starts
MOST_LOOKS = 100  # something may start processes as fast as we find them
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
QUERY_LIMITED_INFORMATION, STILL_ACTIVE = 0x1000, 259  # <winnt.h>, <minwinbase.h>


def boot_id() -> str:
    """Differs after each start of the machine; empty where start times are dates and need none."""
    return BOOT_ID.read_text(encoding="ascii").strip() if HAS_PROC else ""


def start_of(pid: int) -> str | None:
    """When a process started: with the process id, who it is. None where there is none, or it has ended."""
    if HAS_PROC:
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    if os.name == "nt":
        return _windows_start(pid)
    found = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.split(maxsplit=1)
    return None if len(found) < 2 or found[0].startswith("Z") else found[1].strip()


def descendants(root: int) -> list[int]:
    """The ids of all that a process has started and what those have; zombies do not count."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    return list(_below(children, root))


def _below(children: dict[int, list[int]], root: int) -> Iterator[int]:
    for pid in children.get(root, ()):
        yield pid
        yield from _below(children, pid)


def _parents() -> Iterator[tuple[int, int]]:
    """(process, its parent), of all that live."""
    if HAS_PROC:
        for entry in PROC.iterdir():
            if entry.name.isdecimal() and (fields := _stat(int(entry.name))) and fields[0] not in "ZX":
                yield int(entry.name), int(fields[1])
        return
    for line in subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout.splitlines():
        pid, parent = line.split()
        yield int(pid), int(parent)


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on; the name before it may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int | None:
    fields = _stat(pid) if HAS_PROC else None
    return None if fields is None else int(fields[1])


def variables_of(pid: int) -> dict[str, str]:
    """The environment that a program was given when it was started; nothing where that cannot be known."""
    try:
        lines = (PROC / str(pid) / "environ").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_those_of(handle: str) -> None:
    """Kill what a job has left behind whose runner was killed, found by its environment.

    Two looks in a row have to find nothing: who becomes another program shows no environment for a moment, and who is found
    may just have started others.
    """
    seen_none = 0
    for _ in range(MOST_LOOKS if HAS_PROC else 0):
        found = _those_of(handle)
        for pid in found:
            send(pid, KILL)
        seen_none = 0 if found else seen_none + 1
        if seen_none == 2:
            return
        time.sleep(0.01)


def _those_of(handle: str) -> list[int]:
    others = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal() and int(entry.name) != os.getpid()]
    return [pid for pid in others if variables_of(pid).get(HANDLE_VARIABLE) == handle]


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it holds before the time is over."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def threads_of_this_user() -> int:
    """How many processes and threads the user has: what RLIMIT_NPROC counts."""
    count = 0
    for entry in PROC.iterdir() if HAS_PROC else ():
        with suppress(OSError):
            if entry.name.isdecimal() and entry.stat().st_uid == os.getuid():
                count += sum(1 for _ in (entry / "task").iterdir())
    return count


def adopt_orphans() -> None:
    """What the job's processes leave behind becomes ours, not the first process's."""
    if HAS_PROC:
        ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> Callable[[], None]:
    """What a child calls before it becomes the program: it is killed when this process is."""
    if not HAS_PROC:
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: between fork and exec as little as can be
    return lambda: prctl(SET_PARENT_DEATH_SIGNAL, KILL, 0, 0, 0)


def _windows_start(pid: int) -> str | None:
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.OpenProcess(QUERY_LIMITED_INFORMATION, False, pid))
    if not process:
        return None
    try:
        code, times = ctypes.c_ulong(), [ctypes.c_ulonglong() for _ in range(4)]
        kernel.GetExitCodeProcess(process, ctypes.byref(code))
        kernel.GetProcessTimes(process, *map(ctypes.byref, times))
        return str(times[0].value) if code.value == STILL_ACTIVE else None
    finally:
        kernel.CloseHandle(process)
