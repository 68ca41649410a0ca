"""Drives one job from where it stands to its end. Everything it does can be repeated: whoever comes after a crash goes on from the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError

from service.database.tables import Job
from service.executors.base import Executor, ExecutorUnavailable, Status, handle_of
from service.jobs.driving import Driver
from service.jobs.stages import Stage, StageFailed, Stopped
from service.jobs.states import BUILDING, CANCELED, FAILED, PREPARING, PUBLISHING, STAGES, SUCCEEDED, TRAINING
from service.storage.space import DiskFull, means_full
from service.webhooks.outbox import LOGS

AFTER = {PREPARING: TRAINING, TRAINING: BUILDING, BUILDING: PUBLISHING, PUBLISHING: SUCCEEDED}
DATABASE_AWAY = (OperationalError, InterfaceError)  # says nothing of the job: it is driven on when the database is back
MOST_RESTARTS = 2  # of what was lost through no fault of its own
log = logging.getLogger("service.jobs")


class Lost(Exception):
    """The job is not this worker's any more, or the service is stopping: leave everything as it is."""


class Drive:
    """`wait`: lets a moment pass, and raises Lost when the service stops, which `is_stopping` tells without a wait."""

    def __init__(
        self, driver: Driver, stages: Mapping[str, Stage], executor: Executor, wait: Callable[[], None], grace_seconds: float = 30.0,
        is_stopping: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        self._driver, self._stages, self._executor = driver, stages, executor
        self._wait, self._grace_seconds, self._is_stopping = wait, grace_seconds, is_stopping

    def run(self, job: Job) -> None:
        """Until the job is over, or somebody else's; raises what DATABASE_AWAY names where the database is."""
        try:
            while job.state in STAGES:
                job = self._stage(job)
        except Lost:
            return

    def _stage(self, job: Job) -> Job:
        stage = self._stages[job.state]
        try:
            self._run_process(job, stage)
            changes, following = stage.end(job), AFTER[job.state]
        except Stopped:
            changes, following = {"error": f"canceled by {self._reload(job).canceled_by}"}, CANCELED
        except StageFailed as failure:
            self._reload(job)  # of a job that is somebody else's by now, what was made is not to be taken back
            changes, following = {"error": str(failure)}, FAILED
        except (Lost, *DATABASE_AWAY):
            raise
        except Exception as error:
            log.exception("job %s failed in %s", job.id, job.state)
            self._end_process(self._reload(job))
            changes, following = {"error": _reason(job, error)}, FAILED
        try:
            stage.leave(job)
        except Exception:  # nothing that the job needs
            log.exception("job %s left something behind in %s", job.id, job.state)
        if following in (CANCELED, FAILED):
            self._take_back(job, stage)
        if not self._driver.advance(job, following, **changes):
            now = self._reload(job)
            if now.cancel_requested_at is None:
                raise Lost
            self._take_back(job, stage)  # it was canceled as it came to its end
            if not self._driver.advance(now, CANCELED, error=f"canceled by {now.canceled_by}"):
                raise Lost
        return self._driver.board.get(job.project_id, job.id)

    def _take_back(self, job: Job, stage: Stage) -> None:
        try:
            stage.take_back(job)
        except DATABASE_AWAY:
            raise
        except Exception:  # the job ends all the same
            log.exception("job %s left something for others in %s", job.id, job.state)

    # --- the process of a stage ---

    def _run_process(self, job: Job, stage: Stage) -> None:
        while True:
            job = self._reload(job)
            handle = self._submitted(job, stage)
            if handle is None:
                return
            status = self._watch(job, stage, handle)
            if status.state == "ended" and status.exit_code == 0:
                return
            if status.state == "ended":
                raise StageFailed(stage.explain(job, status))
            self._restart(job, status)

    def _submitted(self, job: Job, stage: Stage) -> str | None:
        """The handle of the process that runs or has run; None: this stage needs none."""
        if job.handle is not None and self._ask(lambda: self._executor.adopt(str(job.handle))) is not None:
            return job.handle
        if job.cancel_requested_at is not None:
            raise Stopped
        spec = stage.begin(job, lambda: self._should_stop(job))
        if spec is None:
            return None
        attempt = job.attempt if job.handle is not None else job.attempt + 1  # named before, submitted never
        handle = handle_of(job.id, job.state, attempt)
        self._change(job, handle=handle, attempt=attempt)  # first: after a crash, it is found by this name
        spec = spec._replace(attempt=attempt, device=job.device)
        self._ask(lambda: self._executor.submit(spec))
        return handle

    def _watch(self, job: Job, stage: Stage, handle: str) -> Status:
        """Until the process has ended."""
        is_canceled = False
        while True:
            status = self._ask(lambda: self._executor.status(handle))
            progress = stage.progress(job)
            now = self._change(job, progress={**job.progress, **progress}) if progress else self._reload(job)
            if progress and now.webhook and LOGS in now.webhook_events:
                self._driver.board.announce_logs(job.id)
            is_over = status.state in ("ended", "lost")
            if now.cancel_requested_at is not None:
                if is_over:
                    raise Stopped
                if not is_canceled:
                    self._ask(lambda: self._executor.cancel(handle, self._grace_seconds))
                    is_canceled = True
            elif is_over:
                return status
            self._wait()

    def _restart(self, job: Job, status: Status) -> None:
        """What ended through no fault of its own begins again, from its last saved state; twice at most."""
        reason = status.reason or "it was stopped from outside"
        if job.restarts >= MOST_RESTARTS:
            raise StageFailed(f"{job.state} was interrupted {MOST_RESTARTS + 1} times, the last time because {reason}")
        warning = f"{job.state} was interrupted ({reason}) and begun again"
        self._change(job, handle=None, restarts=job.restarts + 1, warnings=[*job.warnings, warning])

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The executor's answer, however long it takes until there is one."""
        while True:
            try:
                return question()
            except ExecutorUnavailable as error:
                log.warning("the executor does not answer: %s", error)
                self._wait()

    def _end_process(self, job: Job) -> None:
        """A job that is over must not run on."""
        handle = job.handle
        if handle is not None:
            self._ask(lambda: self._executor.cancel(handle, self._grace_seconds))

    # --- the row ---

    def _reload(self, job: Job) -> Job:
        now = self._driver.board.find(job.project_id, job.id)
        if now is None or now.owner != self._driver.owner or now.state != job.state:
            raise Lost
        return now

    def _change(self, job: Job, **values: Any) -> Job:
        now = self._driver.change(job.id, **values)
        if now is None or now.state != job.state:
            raise Lost
        return now

    def _should_stop(self, job: Job) -> bool:
        if self._is_stopping():
            raise Lost
        return self._reload(job).cancel_requested_at is not None


def _reason(job: Job, error: Exception) -> str:
    if means_full(error):
        return str(DiskFull())
    return f"the service made a mistake while {job.state} ({type(error).__name__}); its log says which"
