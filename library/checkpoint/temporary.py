"""Temporary names of files in the making, and the removal of those that dead processes left behind."""
from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

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
    return _has_ended(int(name["pid"]))


def _has_ended(pid: int) -> bool:
    """Also one that was killed and that nobody reaps, as in many containers."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _last_write(path: Path) -> float:
    """When the file, or the newest file of the folder, changed last (seconds since 1970); now, if it just went away."""
    try:
        return max(item.stat().st_mtime for item in (path, *path.rglob("*")))
    except OSError:
        return time.time()
