"""A service that dies at the places that a test names, and is started again; and what is left when it is done."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.tables import Job, WebhookMessage
from service.executors.base import ExecutorUnavailable, Spec, Status
from service.jobs.board import JobBoard, NewJob
from service.jobs.drive import Drive
from service.jobs.driving import LEASE_SECONDS, Driver
from service.jobs.stages import Stage, StageFailed
from service.jobs.states import BUILDING, FINAL, PREPARING, PUBLISHING, TRAINING
from service.keys import Caller, Keys
from service.webhooks.outbox import EVENTS, Outbox

POLLS = 3  # a process runs for so many looks at it


class Killed(BaseException):
    """kill -9 at this place."""


class Fate:
    """Counts the places where a service can die; it dies at those that are named."""

    def __init__(self, deaths: set[int]) -> None:
        self.deaths, self.place = deaths, 0

    def __call__(self) -> None:
        self.place += 1
        if self.place in self.deaths:
            raise Killed


class MortalDatabase(Database):
    """The service may die before and after each transaction; in between is like before."""

    fate: Fate

    @contextmanager
    def writing(self) -> Iterator[Session]:
        self.fate()
        with super().writing() as session:
            yield session
        self.fate()


class Machine:
    """Runs processes that outlive the service. `ends`: how those of a stage end, one after the other; the rest ends well."""

    keeps_queue = False
    statement = "not at all"

    def __init__(self, fate: Fate, ends: dict[str, list[Status]], silent: int = 0) -> None:
        self.fate, self.ends, self.silent = fate, ends, silent
        self.polls: dict[str, int] = {}
        self.specs: dict[str, Spec] = {}
        self.ended: dict[str, Status] = {}
        self.at_once = 0

    def submit(self, spec: Spec) -> str:
        self.fate()
        self._answer()
        if spec.handle not in self.specs:
            self.specs[spec.handle] = spec
            self.polls[spec.handle] = 0
            self.at_once = max(self.at_once, len(self.specs.keys() - self.ended.keys()))
        self.fate()
        return spec.handle

    def status(self, handle: str) -> Status:
        self._answer()
        if handle not in self.ended:
            self.polls[handle] += 1
            if self.polls[handle] < POLLS:
                return Status("running")
            waiting = self.ends.get(self.specs[handle].stage, [])
            self.ended[handle] = waiting.pop(0) if waiting else Status("ended", 0)
        return self.ended[handle]

    def adopt(self, handle: str) -> Status | None:
        return self.status(handle) if handle in self.specs else None

    def cancel(self, handle: str, grace: float = 30.0) -> None:
        self.fate()
        self.ended.setdefault(handle, Status("ended", 143, "canceled"))

    def logs(self, handle: str, offset: int = 0, most: int = 1) -> bytes:
        return b""

    def _answer(self) -> None:
        if self.silent:
            self.silent -= 1
            raise ExecutorUnavailable("not now")


class ToyStage:
    """Runs a process, or does nothing; `mistake` in the first stage. The last one makes something for others."""

    is_public = False

    def __init__(self, name: str, fate: Fate, has_process: bool, mistake: str | None = None) -> None:
        self._name, self._fate, self._has_process, self._mistake = name, fate, has_process, mistake

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        self._fate()
        if self._mistake:
            raise StageFailed(self._mistake)
        folder = Path("/nowhere")
        return Spec(job.id, self._name, ("x",), folder, {}, folder / "log", folder) if self._has_process else None

    def progress(self, job: Job) -> dict[str, Any] | None:
        return {"step": 1}

    def explain(self, job: Job, status: Status) -> str:
        return f"explained: {status.reason}"

    def end(self, job: Job) -> dict[str, Any]:
        self._fate()
        if self._name != PUBLISHING:
            return {}
        self.is_public = True
        self._fate()
        return {"output": {"version": "v1"}}

    def leave(self, job: Job) -> None:
        self._fate()

    def take_back(self, job: Job) -> None:
        self._fate()
        self.is_public = False
        self._fate()


class World:
    """A service that is started again whenever it dies, and what is left when it is done."""

    def __init__(self, database: MortalDatabase, deaths: set[int], ends: dict[str, list[Status]], **more: Any) -> None:
        self.fate, self.now, self.database = Fate(deaths), 1000.0, database
        self.database.fate = Fate(set())  # nobody dies while the job is made
        self.outbox = Outbox(lambda: self.now)
        self.board = JobBoard(self.database, self.outbox, 10, lambda: self.now)
        self.machine = Machine(self.fate, ends, more.get("silent", 0))
        self.cancel_at, self.waits = more.get("cancel_at"), 0
        processes = (TRAINING, BUILDING)
        names = (PREPARING, TRAINING, BUILDING, PUBLISHING)
        mistake = more.get("mistake")
        self.stages: dict[str, Stage] = {
            name: ToyStage(name, self.fate, name in processes, mistake if name == PREPARING else None) for name in names
        }
        keys = Keys(self.database)
        self.caller = Caller(keys.project("p"), "k", frozenset())
        wanted = NewJob("console", webhook="https://example.org", webhook_events=EVENTS, is_ready=True)
        self.job_id = self.board.create(self.caller, wanted).id
        self.database.fate = self.fate
        self.lives = 0

    def run(self) -> Job:
        """Until nobody dies any more, and the job is over."""
        while True:
            self.lives += 1
            assert self.lives < 60, "the job never ends"
            try:
                self._live()
            except Killed:
                self.now += LEASE_SECONDS + 1
                continue
            job = self.job()
            if job.state in FINAL:
                return job

    def _live(self) -> None:
        driver = Driver(self.board, f"worker-{self.lives}", "host")
        job = driver.take_over() or driver.claim()
        if job is not None:
            Drive(driver, self.stages, self.machine, self._wait).run(job)

    def _wait(self) -> None:
        self.waits += 1
        self.now += 1
        assert self.waits < 200, "the job never ends"
        if self.waits == self.cancel_at:
            alive, self.database.fate = self.database.fate, Fate(set())
            self.board.cancel(self.caller.project_id, self.job_id, "mia")
            self.database.fate = alive

    def job(self) -> Job:
        with self.database.reading() as session:
            return session.scalars(select(Job).where(Job.id == self.job_id)).one()

    def events(self) -> list[str]:
        with self.database.reading() as session:
            return list(session.scalars(select(WebhookMessage.event).order_by(WebhookMessage.number)))

    @property
    def is_public(self) -> bool:
        stage = self.stages[PUBLISHING]
        assert isinstance(stage, ToyStage)
        return stage.is_public

    def processes(self, stage: str) -> int:
        return sum(spec.stage == stage for spec in self.machine.specs.values())


Worlds = Callable[..., AbstractContextManager[World]]
