"""What a stage of a job is, and what may go wrong in it. The stages stand in `service.jobs.work` and `service.jobs.handing_over`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from service.database.tables import Job
from service.executors.base import Spec, Status

ASK_SECONDS = 1.0


class StageFailed(Exception):
    """The job has failed: one line for its client, of what is wrong and what to do instead."""


class Stopped(Exception):
    """Somebody wants no more of this stage: it was canceled, or the service is stopping."""


class Stage(Protocol):
    """One stage. Each method may be called again after a crash, and then does again or finds done what it does."""

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        """Get everything ready; what is to be run as a process, None if nothing. Raises StageFailed, or Stopped when it should stop."""

    def progress(self, job: Job) -> dict[str, Any] | None:
        """What has changed while the process runs; None: nothing."""

    def explain(self, job: Job, status: Status) -> str:
        """Why the process failed, in one line."""

    def end(self, job: Job) -> dict[str, Any]:
        """The process has ended well: what changes in the job's row with the next state (`output`, `warnings` ...)."""

    def leave(self, job: Job) -> None:
        """The stage is over, however it went: keep what others can use."""

    def take_back(self, job: Job) -> None:
        """The job ends in this stage, and not well: nothing that the stage made for others may stay."""


def unless_stopped(work: Callable[[], None], should_stop: Callable[[], bool]) -> None:
    """Do something that takes long and cannot be interrupted, such as a download; Stopped as soon as it is not wanted any more.

    Then it comes to its end unattended: it must do no harm.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(ASK_SECONDS)
        if thread.is_alive() and should_stop():
            raise Stopped
    if failures:
        raise failures[0]
