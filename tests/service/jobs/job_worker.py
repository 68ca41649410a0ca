"""A worker as a process of its own, with a stage that runs a small script: tests kill it. Arguments: database, folder."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.database.engine import Database
from service.database.tables import Job
from service.executors.base import Spec, Status
from service.executors.devices import Devices
from service.executors.local import LocalExecutor
from service.jobs import worker as module
from service.jobs.board import JobBoard
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, TRAINING
from service.jobs.worker import Worker
from service.settings import ServiceSettings
from service.webhooks.outbox import Outbox

# Notes that it runs, and ends when it may; when it is asked to end it does not.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()  # a child that has left its parents
    while not (folder / "go").exists():
        time.sleep(0.02)
    os._exit(0)
with (folder / "runs").open("a") as file:
    file.write(f"{os.getpid()}\\n")
while not (folder / "go").exists():
    time.sleep(0.02)
"""


class Short:
    """A stage; only training runs a process."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        if self._name != TRAINING:
            return None
        own = self._folder / job.id
        own.mkdir(exist_ok=True)
        argv = (sys.executable, "-c", SCRIPT, str(own))
        return Spec(job.id, self._name, argv, own, {}, own / "log", own)

    def progress(self, job: Job) -> dict[str, Any] | None:
        return None

    def explain(self, job: Job, status: Status) -> str:
        return status.reason

    def end(self, job: Job) -> dict[str, Any]:
        return {"output": {}} if self._name == PUBLISHING else {}

    def leave(self, job: Job) -> None:
        return None

    def take_back(self, job: Job) -> None:
        return None


def main(url: str, folder: Path) -> None:
    module.POLL_SECONDS = 0.05
    settings = ServiceSettings(data_dir=folder, cancel_grace_seconds=0.3)
    board = JobBoard(Database(url), Outbox(), 10)
    stages = {name: Short(name, folder) for name in (PREPARING, TRAINING, BUILDING, PUBLISHING)}
    Worker(board, settings, LocalExecutor(folder / "runs", "never"), Devices(("cpu", "cpu-2")), stages).start()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
