"""A service that is killed anywhere, any number of times: every job ends right, once."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_databases import fresh_database
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.tables import Base, Job, WebhookMessage
from service.executors.base import ExecutorUnavailable, Spec, Status
from service.jobs import stages
from service.jobs.board import JobBoard, NewJob
from service.jobs.drive import MOST_RESTARTS, Drive, Lost
from service.jobs.driving import LEASE_SECONDS, Driver
from service.jobs.stages import Stage, StageFailed, Stopped, unless_stopped
from service.jobs.states import BUILDING, CANCELED, FAILED, FINAL, PREPARING, PUBLISHING, SUCCEEDED, TRAINING
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
    """Runs a process, or does nothing; `mistake` in the first stage."""

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
        return {"output": {"version": "v1"}} if self._name == PUBLISHING else {}

    def leave(self, job: Job) -> None:
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

    def processes(self, stage: str) -> int:
        return sum(spec.stage == stage for spec in self.machine.specs.values())


Worlds = Callable[..., AbstractContextManager[World]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """Makes worlds, one after the other: they share an engine, which has each statement compiled once."""
    with fresh_database(tmp_path_factory.mktemp("worlds")) as url:
        database = MortalDatabase(url)

        @contextmanager
        def made(deaths: set[int], ends: dict[str, list[Status]] | None = None, **more: Any) -> Iterator[World]:
            database.fate = Fate(set())
            with database.writing() as session:
                for table in reversed(Base.metadata.sorted_tables):  # of the world before
                    session.execute(delete(table))
            yield World(database, deaths, ends or {}, **more)

        yield made
        database.close()


LOST = Status("lost", reason="its runner was killed")
deaths = st.sets(st.integers(1, 60), max_size=12)


@settings(max_examples=40)
@given(deaths=deaths)
def test_a_job_succeeds_once_whenever_the_service_dies(world: Worlds, deaths: set[int]) -> None:
    with world(deaths) as made:
        job = made.run()
        assert (job.state, job.output, job.error) == (SUCCEEDED, {"version": "v1"}, None)
        assert (made.processes(TRAINING), made.processes(BUILDING), made.machine.at_once) == (1, 1, 1)
        events = made.events()
        assert (events.count("start"), events.count("output"), events.count("completed")) == (1, 1, 1)
        assert events[-1] == "completed"
        assert job.restarts == 0


@settings(max_examples=30)
@given(deaths=deaths, lost=st.integers(1, MOST_RESTARTS + 2))
def test_what_was_lost_begins_again_twice_at_most(world: Worlds, deaths: set[int], lost: int) -> None:
    with world(deaths, {TRAINING: [LOST] * lost}) as made:
        job = made.run()
        if lost <= MOST_RESTARTS:
            assert (job.state, job.restarts, made.processes(TRAINING)) == (SUCCEEDED, lost, lost + 1)
            assert len(job.warnings) == lost
        else:
            assert (job.state, made.processes(TRAINING)) == (FAILED, MOST_RESTARTS + 1)
            assert "was interrupted 3 times, the last time because its runner was killed" in str(job.error)
        assert made.machine.at_once == 1
        assert made.events().count("completed") == 1


@settings(max_examples=30)
@given(deaths=deaths, cancel_at=st.integers(1, 7), stubborn=st.booleans())
def test_a_job_that_is_canceled_ends_canceled_or_done_and_nothing_of_it_runs(world: Worlds, deaths: set[int], cancel_at: int, stubborn: bool) -> None:
    with world(deaths, {TRAINING: [LOST]} if stubborn else {}, cancel_at=cancel_at) as made:
        job = made.run()
        assert job.state == (CANCELED if job.cancel_requested_at is not None else SUCCEEDED)
        if job.state == CANCELED:
            assert job.error == "canceled by mia"
        assert made.machine.specs.keys() == made.machine.ended.keys()
        assert made.events().count("completed") == 1


@settings(max_examples=20)
@given(deaths=deaths)
def test_a_job_that_fails_is_not_tried_again(world: Worlds, deaths: set[int]) -> None:
    with world(deaths, {TRAINING: [Status("ended", 2, "a mistake")]}) as made:
        job = made.run()
        assert (job.state, job.error, made.processes(TRAINING), made.processes(BUILDING)) == (FAILED, "explained: a mistake", 1, 0)
        assert made.events().count("completed") == 1


def test_each_single_place_is_survived(world: Worlds) -> None:
    """Every place where a service can die, one after the other, until a run passes that has no such place any more."""
    place = 0
    while True:
        place += 1
        with world({place}) as made:
            assert made.run().state == SUCCEEDED
            assert (made.processes(TRAINING), made.events().count("completed")) == (1, 1)
            if made.lives == 1:
                break
    assert place > 30


def test_a_mistake_in_what_was_sent_is_told(world: Worlds) -> None:
    with world(set(), mistake="no pictures") as made:
        job = made.run()
        assert (job.state, job.error, made.machine.specs) == (FAILED, "no pictures", {})


def test_a_mistake_of_ours_ends_the_job_too(world: Worlds) -> None:
    with world(set()) as made:

        def crash(job: Job) -> dict[str, Any]:
            raise KeyError("secret")

        made.stages[BUILDING].end = crash  # type: ignore[method-assign]
        job = made.run()
        assert job.state == FAILED
        assert job.error == "the service made a mistake while building (KeyError); its log says which"


def test_what_takes_long_is_left_when_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ASK_SECONDS", 0.01)
    go = threading.Event()
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        unless_stopped(lambda: go.wait(30) and None, lambda: next(asked))
    go.set()
    unless_stopped(lambda: None, lambda: True)
    with pytest.raises(ZeroDivisionError):
        unless_stopped(lambda: print(1 / 0), lambda: False)


def test_a_mistake_of_ours_leaves_nothing_running(world: Worlds) -> None:
    with world(set()) as made:

        def crash(job: Job) -> dict[str, Any]:
            raise KeyError("secret")

        made.stages[TRAINING].progress = crash  # type: ignore[method-assign]
        assert made.run().state == FAILED
        assert list(made.machine.ended.values()) == [Status("ended", 143, "canceled")]


def test_a_database_that_is_away_for_a_moment_harms_no_job(world: Worlds) -> None:
    with world(set()) as made:
        failures = [OperationalError("UPDATE", {}, Exception("database is locked"))]

        def progress(job: Job) -> dict[str, Any]:
            if failures:
                raise failures.pop()
            return {}

        made.stages[TRAINING].progress = progress  # type: ignore[method-assign]
        with pytest.raises(OperationalError):
            made.run()
        made.now += LEASE_SECONDS + 1
        assert (made.run().state, made.processes(TRAINING)) == (SUCCEEDED, 1)


def test_an_executor_that_does_not_answer_is_waited_for(world: Worlds) -> None:
    with world(set(), silent=9) as made:
        assert made.run().state == SUCCEEDED
        assert made.processes(TRAINING) == 1


def test_a_service_that_stops_leaves_the_job_as_it_is(world: Worlds) -> None:
    with world(set()) as made:
        driver = Driver(made.board, "first", "host")
        job = driver.claim()
        assert job is not None

        def stop() -> None:
            raise Lost

        Drive(driver, made.stages, made.machine, stop).run(job)
        left = made.job()
        assert (left.state, left.handle) == (TRAINING, f"tadpole-{job.id}-training-1")
        driver.release()
        assert made.run().state == SUCCEEDED
        assert made.processes(TRAINING) == 1


def test_workers_that_are_gone_are_found_at_once(world: Worlds) -> None:
    with world(set()) as made:
        assert Driver(made.board, "dead", "host").claim() is not None
        second = Driver(made.board, "second", "host")
        second.disown(lambda owner: False)
        assert second.take_over() is None
        second.disown(lambda owner: owner == "dead")
        taken = second.take_over()
        assert taken is not None
        assert taken.owner == "second"


def test_workers_of_other_machines_are_not_judged(world: Worlds) -> None:
    with world(set()) as made:
        assert Driver(made.board, "dead", "elsewhere").claim() is not None
        second = Driver(made.board, "second", "host")
        second.disown(lambda owner: True)
        assert made.job().owner == "dead"
