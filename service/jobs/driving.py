"""What workers do with jobs: claim, keep, report; leases say who drives a job, and who may take it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from service.database.engine import RETURNED
from service.database.tables import Job
from service.jobs.board import JobBoard
from service.jobs.states import PREPARING, QUEUED, STAGES

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0
HOST_GONE_SECONDS = 600.0  # after this, jobs of a machine that is silent are taken over by others
CLAIM_LOCK = 7_233_676_538  # any number: one claim at a time keeps the caps exact


Choose = Callable[[Sequence[str]], "str | None"]


class Driver:
    """The board as one worker sees it. `owner` is the name of its process, `host` that of its machine."""

    def __init__(self, board: JobBoard, owner: str, host: str, running_per_project: int = 0):
        self.board, self.owner, self.host = board, owner, host
        self._running_per_project = running_per_project

    def claim(self, choose: Choose = lambda taken: "") -> Job | None:
        """The next job that waits: highest priority, then longest wait, of a project that may run one more.

        `choose` names a device that is not among those of this machine that are taken; None: all are.
        """
        waiting, other = aliased(Job), aliased(Job)
        candidate = select(waiting.id).where(waiting.state == QUEUED)
        if self._running_per_project:
            running = select(func.count()).select_from(other).where(other.project_id == waiting.project_id, other.state.in_(STAGES))
            candidate = candidate.where(running.scalar_subquery() < self._running_per_project)
        candidate = candidate.order_by(waiting.priority.desc(), waiting.queued_at, waiting.id).limit(1)
        candidate = candidate.with_for_update(skip_locked=True, of=waiting)
        now = self.board.clock()
        with self.board.database.writing() as session:
            self._lock(session)
            taken = session.scalars(select(Job.device).where(Job.state.in_(STAGES), Job.host == self.host)).all()
            device = choose([name for name in taken if name])
            if device is None:
                return None
            values = {"state": PREPARING, "started_at": now, "attempt": 0, "handle": None, "device": device or None, **self._lease(now)}
            job = self._take(session, candidate.scalar_subquery(), values, Job.state == QUEUED)
            if job is not None:
                self.board.started(session, job)
            return job

    def take_over(self) -> Job | None:
        """A running job whose worker is silent; its processes may run yet. `restarts` counts what is started again, not this."""
        now = self.board.clock()
        silent_one = aliased(Job)
        candidate = select(silent_one.id).where(*self._silent(silent_one, now)).order_by(silent_one.queued_at, silent_one.id).limit(1)
        candidate = candidate.with_for_update(skip_locked=True, of=silent_one)
        with self.board.database.writing() as session:
            self._lock(session)
            return self._take(session, candidate.scalar_subquery(), self._lease(now), *self._silent(Job, now))

    def heartbeat(self) -> int:
        """Keep all jobs of this worker for another while; how many there are."""
        lease = {"lease_expires_at": self.board.clock() + LEASE_SECONDS}
        mine = update(Job).where(Job.owner == self.owner, Job.state.in_(STAGES)).values(**lease).returning(Job.id)
        with self.board.database.writing() as session:
            return len(session.execute(mine, execution_options=RETURNED).all())

    def release(self, except_for: Sequence[str] = ()) -> None:
        """Leave this worker's jobs, whose processes run on, to whoever comes next: the service is stopping."""
        self._let_go(Job.owner == self.owner, Job.id.not_in(except_for))

    def disown(self, is_dead: Callable[[str], bool]) -> None:
        """Free the jobs of workers of this machine that are dead, before their lease ends."""
        with self.board.database.reading() as session:
            here = select(Job.owner).where(Job.state.in_(STAGES), Job.host == self.host, Job.owner.is_not(None)).distinct()
            dead = [owner for owner in session.scalars(here) if owner is not None and owner != self.owner and is_dead(owner)]
        if dead:
            self._let_go(Job.owner.in_(dead))

    def _let_go(self, *conditions: ColumnElement[bool]) -> None:
        released = update(Job).where(*conditions, Job.state.in_(STAGES)).values(lease_expires_at=None, owner=None)
        with self.board.database.writing() as session:
            session.execute(released, execution_options={"synchronize_session": False})

    def change(self, job_id: str, **values: Any) -> Job | None:
        """Write down `handle`, `attempt`, `restarts`, `progress` or `warnings`; None: the job is not this worker's any more."""
        mine = update(Job).where(Job.id == job_id, Job.owner == self.owner, Job.state.in_(STAGES)).values(**values).returning(Job)
        with self.board.database.writing() as session:
            return session.scalar(mine, execution_options=RETURNED)

    def mine(self, job_id: str) -> Job | None:
        """The job, if this worker has it and it is not over."""
        with self.board.database.reading() as session:
            return session.scalar(select(Job).where(Job.id == job_id, Job.owner == self.owner, Job.state.in_(STAGES)))

    def advance(self, job: Job, to_state: str, **changes: Any) -> bool:
        return self.board.advance(job.id, job.state, to_state, self.owner, **changes)

    def _take(self, session: Session, job_id: Any, values: Mapping[str, Any], *conditions: ColumnElement[bool]) -> Job | None:
        taken = update(Job).where(Job.id == job_id, *conditions).values(**values).returning(Job)
        return session.scalar(taken, execution_options=RETURNED)

    def _silent(self, job: Any, now: float) -> tuple[ColumnElement[bool], ...]:
        is_here = or_(job.host == self.host, job.lease_expires_at < now - HOST_GONE_SECONDS)
        is_free = or_(job.lease_expires_at.is_(None), job.lease_expires_at < now)
        return job.state.in_(STAGES), is_free, is_here, or_(job.owner.is_(None), job.owner != self.owner)

    def _lease(self, now: float) -> dict[str, Any]:
        return {"owner": self.owner, "host": self.host, "lease_expires_at": now + LEASE_SECONDS}

    def _lock(self, session: Session) -> None:
        if not self.board.database.is_sqlite:  # there, a transaction that writes is alone anyway
            session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": CLAIM_LOCK})
