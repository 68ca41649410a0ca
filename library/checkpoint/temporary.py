"""Temporary names of files in the making, and the removal of those that dead processes left behind."""
from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

LONGEST_NAME = 120  # bytes of the final name that a temporary name repeats: file systems end at 255
ABANDONED_AFTER = 3600.0  # seconds without a write, after which another machine's temporary file counts as nobody's
TEMPORARY_NAME = re.compile(r"^\..*\.tmp-(?P<machine>[0-9a-f]+)-(?P<pid>\d+)-(?P<process>[0-9a-f]+)-\d+")

_process = os.urandom(4).hex()  # tells this process from an earlier one of the same id
_counter = itertools.count()


def _machine() -> str:
    """Where a process id has a meaning: this host and, in containers, this namespace of process ids."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.blake2b(f"{socket.gethostname()} {namespace}".encode(), digest_size=4).hexdigest()


def temporary_path(path: Path) -> Path:
    """A fresh hidden name beside `path`, so that a rename is enough; with its extension, by which writers choose their format."""
    stem = path.stem.encode("utf-8")[:LONGEST_NAME].decode("utf-8", errors="ignore")
    return path.with_name(f".{stem}.tmp-{_machine()}-{os.getpid()}-{_process}-{next(_counter)}{path.suffix}")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Removes what dead processes left half-written in `folder`; says what it removed."""
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp-*")):
        match = TEMPORARY_NAME.match(path.name)
        if match is None or not _is_abandoned(path, match):
            continue
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path)
    return removed


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    """Whether the process that made this temporary file has ended; of another machine's processes only the time tells."""
    if name["machine"] != _machine():
        return time.time() - _last_write(path) > ABANDONED_AFTER
    if int(name["pid"]) == os.getpid():
        return name["process"] != _process
    return not _is_running(int(name["pid"]))


def _last_write(path: Path) -> float:
    """When the file, or the newest file of the folder, changed last (seconds since 1970); now, if it just went away."""
    try:
        return max(item.stat().st_mtime for item in (path, *path.rglob("*")))
    except OSError:
        return time.time()


def _is_running(pid: int) -> bool:
    """Whether a process of this machine has this id; in doubt, yes."""
    if sys.platform == "win32":
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_running_on_windows(pid: int) -> bool:
    """On Windows `os.kill` would end the process: ask for a handle instead."""
    import ctypes

    query_limited_information, invalid_parameter, still_active = 0x1000, 87, 259
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return ctypes.get_last_error() != invalid_parameter  # type: ignore[attr-defined]
    code = ctypes.c_ulong()
    known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return not known or code.value == still_active
