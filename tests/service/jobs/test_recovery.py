"""A service that is killed anywhere, any number of times: every job ends right, once."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_databases import fresh_database
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from service.database.tables import Base, Job
from service.executors.base import Spec, Status
from service.jobs import stages
from service.jobs.drive import MOST_RESTARTS, Drive, Lost
from service.jobs.driving import LEASE_SECONDS, Driver
from service.jobs.stages import StageFailed, Stopped, unless_stopped
from service.jobs.states import BUILDING, CANCELED, FAILED, PUBLISHING, SUCCEEDED, TRAINING
from tests.service.jobs.mortal_world import Fate, MortalDatabase, World, Worlds


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
        assert made.is_public
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
    go = threading.Event()
    asked = iter([False, False, True])
    with monkeypatch.context() as impatient, pytest.raises(Stopped):
        impatient.setattr(stages, "ASK_SECONDS", 0.01)
        unless_stopped(lambda: go.wait(30) and None, lambda: next(asked))
    go.set()
    unless_stopped(lambda: None, lambda: True)
    with pytest.raises(ZeroDivisionError):
        unless_stopped(lambda: print(1 / 0), lambda: False)


@settings(max_examples=10)
@given(deaths=deaths)
def test_canceled_as_it_is_published_it_is_public_only_if_it_succeeds(world: Worlds, deaths: set[int]) -> None:
    with world(deaths) as made:
        stage = made.stages[PUBLISHING]
        publish = stage.end

        def canceled(job: Job) -> dict[str, Any]:
            output = publish(job)
            made.board.cancel(made.caller.project_id, made.job_id, "mia")
            return output

        stage.end = canceled  # type: ignore[method-assign]
        job = made.run()
        assert (job.state, made.is_public) == (CANCELED, False)
        assert made.events().count("completed") == 1


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


def test_what_a_worker_fails_at_that_was_replaced_stays_as_the_other_one_made_it(world: Worlds) -> None:
    """It was silent for longer than its lease, in the middle of the last stage."""
    with world(set()) as made:
        stage = made.stages[PUBLISHING]
        begin = stage.begin

        def late(job: Job, should_stop: Callable[[], bool]) -> Spec | None:
            stage.begin = begin  # type: ignore[method-assign]
            made.now += LEASE_SECONDS + 1
            assert made.run().state == SUCCEEDED
            raise StageFailed("the result could not be packed")

        stage.begin = late  # type: ignore[method-assign]
        assert made.run().state == SUCCEEDED
        assert made.is_public


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
