"""The board of jobs: whoever changes a job does it here, by one conditional UPDATE, with its webhooks in the same transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.tables import AuditEntry, Job
from service.identifiers import new_id
from service.jobs.pages import Page, page_of
from service.jobs.states import (
    BEFORE_START,
    CANCELED,
    CREATED,
    FAILED,
    FINAL,
    PREPARING,
    QUEUED,
    STAGES,
    SUCCEEDED,
    UPLOADING,
    may_follow,
)
from service.keys import Caller
from service.problems import Problem, not_found
from service.webhooks.outbox import COMPLETED, LOGS, OUTPUT, START, Outbox

IDEMPOTENT_SECONDS = 24 * 3600.0
_UNTRACKED = {"synchronize_session": False}


@dataclass(frozen=True)
class NewJob:
    """A job to be. `is_ready`: it waits for nothing more from the client, and is queued at once."""

    api: str
    name: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    input_key: str | None = None
    webhook: str | None = None
    webhook_events: Sequence[str] = ()
    warnings: Sequence[str] = ()
    priority: int = 0
    parent_id: str | None = None
    is_ready: bool = False


class JobBoard:
    """What views and users do with jobs. What workers do stands in `service.jobs.driving`."""

    def __init__(self, database: Database, outbox: Outbox, queued_per_project: int, clock: Callable[[], float] = time.time):
        self.database, self.outbox, self.clock = database, outbox, clock
        self._queued_per_project = queued_per_project

    def create(self, caller: Caller, new: NewJob) -> Job:
        """A job of the caller; the one that is there if the same request came before."""
        try:
            return self._create(caller, new)
        except IntegrityError:  # it came twice at once: the other one has been written meanwhile
            if caller.idempotency_key is None:
                raise
            return self._create(caller, new)

    def _create(self, caller: Caller, new: NewJob) -> Job:
        now = self.clock()
        with self.database.writing() as session:
            earlier = self._of_same_request(session, caller, now)
            if earlier is not None:
                return earlier
            if new.is_ready:
                self._make_room(session, caller.project_id)
            job = Job(
                id=new_id(), project_id=caller.project_id, key_id=caller.key_id, api=new.api, name=new.name,
                state=QUEUED if new.is_ready else CREATED, priority=new.priority, inputs=dict(new.inputs),
                resolved=None if new.resolved is None else dict(new.resolved), details=dict(new.details), input_key=new.input_key,
                webhook=new.webhook, webhook_events=list(new.webhook_events), warnings=list(new.warnings), progress={},
                created_at=now, queued_at=now if new.is_ready else None, attempt=0, restarts=0,
                idempotency_key=caller.idempotency_key, parent_id=new.parent_id,
            )  # fmt: skip
            session.add(job)
            _note(session, now, job, "job created", caller.key_id)
        return job

    def _of_same_request(self, session: Session, caller: Caller, now: float) -> Job | None:
        if caller.idempotency_key is None:
            return None
        same = (Job.project_id == caller.project_id, Job.idempotency_key == caller.idempotency_key)
        forgotten = update(Job).where(*same, Job.created_at < now - IDEMPOTENT_SECONDS).values(idempotency_key=None)
        session.execute(forgotten, execution_options=_UNTRACKED)
        return session.scalar(select(Job).where(*same))

    def _make_room(self, session: Session, project_id: str) -> None:
        waiting = session.scalar(select(func.count()).select_from(Job).where(Job.project_id == project_id, Job.state == QUEUED)) or 0
        if waiting >= self._queued_per_project:
            detail = f"{waiting} jobs of this project are waiting already, which is the limit; wait for one to start, or cancel one"
            raise Problem(429, "Too many queued jobs", detail, retry_after=60)

    def find(self, project_id: str, job_id: str) -> Job | None:
        with self.database.reading() as session:
            job = session.get(Job, job_id)  # statuses are asked for all the time: half of the time that a select takes
        return job if job is not None and job.project_id == project_id else None

    def get(self, project_id: str, job_id: str) -> Job:
        job = self.find(project_id, job_id)
        if job is None:
            raise not_found(f"job {job_id[:64]}")
        return job

    def page(
        self, project_id: str, *, cursor: str | None = None, limit: int = 100,
        apis: Sequence[str] = (), states: Sequence[str] = (),
    ) -> Page[Job]:  # fmt: skip
        """Jobs of a project, newest first; `cursor` is `next` or `previous` of another page."""
        conditions: list[ColumnElement[bool]] = [Job.project_id == project_id]
        if apis:
            conditions.append(Job.api.in_(apis))
        if states:
            conditions.append(Job.state.in_(states))
        with self.database.reading() as session:
            return page_of(session, Job, conditions, cursor, limit)

    def queue_position(self, job: Job) -> int | None:
        """How many jobs will be taken before this one; None if it does not wait."""
        if job.state != QUEUED:
            return None
        earlier = (Job.priority > job.priority) | ((Job.priority == job.priority) & (Job.queued_at < job.queued_at))
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state == QUEUED, earlier))

    def mark_uploading(self, project_id: str, job_id: str, input_key: str) -> bool:
        """A client got a place for its pictures. False: the job has started, what it was given counts."""
        with self.database.writing() as session:
            values = {"state": UPLOADING, "input_key": input_key}
            return self._change(session, job_id, BEFORE_START, values, Job.project_id == project_id) is not None

    def start(self, project_id: str, job_id: str, **changes: Any) -> Job:
        """Queue a job that waited for its client, with what the client said (`inputs`, `resolved`, `name` ...).

        For a job that was started already this changes nothing: it is run once.
        """
        now = self.clock()
        with self.database.writing() as session:
            job = session.scalar(select(Job).where(Job.id == job_id, Job.project_id == project_id))
            if job is None:
                raise not_found(f"job {job_id[:64]}")
            if job.state not in BEFORE_START:
                return job
            self._make_room(session, project_id)
            started = self._change(session, job_id, BEFORE_START, {**changes, "state": QUEUED, "queued_at": now})
            if started is None:  # somebody else was faster
                return self._again(session, job_id)
            _note(session, now, started, "job started", None)
            return started

    def cancel(self, project_id: str, job_id: str, by: str) -> Job:
        """At once if nothing runs yet; else the worker is asked, and the job is canceled unless it has ended first."""
        now = self.clock()
        with self.database.writing() as session:
            mine = Job.project_id == project_id
            values = {"canceled_by": by, "cancel_requested_at": now, "completed_at": now, "error": f"canceled by {by}"}
            job = self._change(session, job_id, (*BEFORE_START, QUEUED), {**values, "state": CANCELED}, mine)
            if job is not None:
                self.outbox.add_job(session, job, COMPLETED)
                _note(session, now, job, "job canceled", None)
                return job
            asked = {"canceled_by": by, "cancel_requested_at": now}
            job = self._change(session, job_id, STAGES, asked, mine, Job.cancel_requested_at.is_(None))
            if job is not None:
                _note(session, now, job, "cancel requested", None)
                return job
            job = session.scalar(select(Job).where(Job.id == job_id, mine))
        if job is None:
            raise not_found(f"job {job_id[:64]}")
        return job

    def advance(self, job_id: str, from_state: str, to_state: str, owner: str | None = None, **changes: Any) -> bool:
        """The one step from state to state. False: the job is elsewhere, another worker's, or was canceled meanwhile.

        `owner`: only if this worker still drives it. Sends `output` when that is among the changes, `start` and `completed` when due.
        """
        if not may_follow(from_state, to_state):
            raise ValueError(f"no job goes from {from_state} to {to_state}")
        now = self.clock()
        conditions: list[ColumnElement[bool]] = []
        if owner is not None:
            conditions.append(Job.owner == owner)
        if to_state not in (FAILED, CANCELED):
            conditions.append(Job.cancel_requested_at.is_(None))
        values = {**changes, "state": to_state, "handle": None, "attempt": 0}
        if to_state in FINAL:
            values |= {"completed_at": now, "owner": None, "lease_expires_at": None}
        with self.database.writing() as session:
            job = self._change(session, job_id, (from_state,), values, *conditions)
            if job is None:
                return False
            if to_state == SUCCEEDED and job.output is not None:
                self.outbox.add_job(session, job, OUTPUT)
            if to_state in FINAL:
                self.outbox.add_job(session, job, COMPLETED)
                _note(session, now, job, f"job {to_state}", None)
            return True

    def announce_logs(self, job_id: str) -> None:
        """A webhook for those who want to hear of new log lines."""
        with self.database.writing() as session:
            job = session.get(Job, job_id)
            if job is not None and job.state in STAGES:
                self.outbox.add_job(session, job, LOGS)

    def started(self, session: Session, job: Job) -> None:
        """A worker has claimed the job, in the transaction of `session`."""
        self.outbox.add_job(session, job, START)
        _note(session, self.clock(), job, f"job {PREPARING}", None)

    def _change(
        self, session: Session, job_id: str, states: Sequence[str], values: Mapping[str, Any], *conditions: ColumnElement[bool]
    ) -> Job | None:
        changed = update(Job).where(Job.id == job_id, Job.state.in_(states), *conditions).values(**values).returning(Job)
        return session.scalar(changed, execution_options={**_UNTRACKED, "populate_existing": True})

    def _again(self, session: Session, job_id: str) -> Job:
        return session.scalars(select(Job).where(Job.id == job_id), execution_options={"populate_existing": True}).one()


def _note(session: Session, now: float, job: Job, action: str, key_id: str | None) -> None:
    session.add(AuditEntry(time=now, project_id=job.project_id, key_id=key_id, action=action, subject_id=job.id, details={"api": job.api}))
