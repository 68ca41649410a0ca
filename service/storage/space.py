"""Free space on the disk: asked before and while anything large is written."""
from __future__ import annotations

import shutil
from pathlib import Path

RESERVE_BYTES = 1 << 30  # that stay free in any case: the database and the logs need them


class DiskFull(Exception):
    """What is to be written would leave too little room on the disk."""

    def __init__(self) -> None:
        super().__init__("the disk of the service is full; try again later, or tell its operator")


def need_room(folder: Path, further_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
    """Raises DiskFull where `further_bytes` more would eat into the reserve."""
    if shutil.disk_usage(folder).free < further_bytes + reserve_bytes:
        raise DiskFull
