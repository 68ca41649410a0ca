"""What the processes of a training tell whoever has started them, as launchers lose it: their ids and exit codes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

STATUS_FILE = "TADPOLE_STATUS_FILE"  # launch.py reads from it the process to signal, and the exit code


def write_status(line: str) -> None:
    if path := os.environ.get(STATUS_FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def write_exit(code: int) -> None:
    """Once: from here on a signal says nothing more, and ends what is left of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    write_status(f"exit {code}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
