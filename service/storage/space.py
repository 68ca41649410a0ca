"""Free space on the disk: asked before and while anything large is written, and how a disk that is full is known. Standard library only."""
from __future__ import annotations

import errno
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESERVE_BYTES = 1 << 30  # that stay free in any case: the database and the logs need them
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_IN_POSTGRESQL = "53100"


class DiskFull(Exception):
    """What is to be written would leave too little room on the disk, or finds none."""

    def __init__(self) -> None:
        super().__init__("the disk of the service is full; try again later, or tell its operator")


def need_room(folder: Path, further_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
    """Raises DiskFull where `further_bytes` more would eat into the reserve."""
    if shutil.disk_usage(folder).free < further_bytes + reserve_bytes:
        raise DiskFull


@contextmanager
def full_is_told() -> Iterator[None]:
    """Turns what is raised where a disk or a quota is full into DiskFull."""
    try:
        yield
    except OSError as error:
        if means_full(error):
            raise DiskFull from error
        raise


@contextmanager
def part_of(destination: Path) -> Iterator[Path]:
    """Where to write what then takes the place of the file, whole or not at all; nobody else who is at the same file writes there."""
    temporary = destination.with_name(f"{destination.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def means_full(error: BaseException | None) -> bool:
    """Whether this, or what it came of, says that there is no room: for files, or for the database."""
    while error is not None:
        if isinstance(error, DiskFull) or getattr(error, "errno", None) in FULL or _is_of_database(error) or _is_of_copies(error):
            return True
        error = error.__cause__
    return False


def _is_of_database(error: BaseException) -> bool:
    is_of_sqlite = isinstance(error, sqlite3.Error) and str(error) == "database or disk is full"
    return is_of_sqlite or getattr(error, "sqlstate", None) == FULL_IN_POSTGRESQL


def _is_of_copies(error: BaseException) -> bool:
    """`shutil.copytree` goes on after a failure, and lists them all as texts."""
    return isinstance(error, shutil.Error) and any(f"[Errno {number}]" in str(error) for number in FULL)
