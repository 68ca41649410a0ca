"""Jobs change by one conditional UPDATE: what races, what repeats, what is whose."""
from __future__ import annotations

from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import select

from service.database.tables import ApiKey, AuditEntry, Job, WebhookMessage
from service.jobs.board import JobBoard, NewJob
from service.jobs.driving import HOST_GONE_SECONDS, LEASE_SECONDS, Driver
from service.jobs.pages import Page, page_of_several
from service.jobs.states import (
    BUILDING,
    CANCELED,
    CREATED,
    FAILED,
    FINAL,
    NEXT,
    PREPARING,
    PUBLISHING,
    QUEUED,
    STATES,
    SUCCEEDED,
    TRAINING,
    UPLOADING,
)
from service.keys import Caller
from service.problems import Problem
from service.services import Services


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(services: Services) -> Clock:
    services.board.clock = Clock()
    return services.board.clock


@pytest.fixture
def board(services: Services, clock: Clock) -> JobBoard:
    return services.board


@pytest.fixture
def driver(board: JobBoard) -> Driver:
    return Driver(board, "worker-1", "host-1")


def ready(board: JobBoard, caller: Caller, **values: object) -> str:
    return board.create(caller, NewJob("console", is_ready=True, **values)).id  # type: ignore[arg-type]


def test_every_state_is_reached_and_left_or_final() -> None:
    assert set(NEXT) == set(STATES)
    assert {state for states in NEXT.values() for state in states} == set(STATES) - {CREATED}
    assert {state for state, following in NEXT.items() if not following} == set(FINAL)


def test_a_job_goes_its_way(board: JobBoard, caller: Caller, driver: Driver, clock: Clock) -> None:
    job = board.create(caller, NewJob("tiyaro", inputs={"seed": 1}, details={"version": "v1"}))
    assert (job.state, job.created_at, job.project_id) == (CREATED, 1000.0, caller.project_id)
    assert board.mark_uploading(caller.project_id, job.id, "jobs/x/input.zip")
    clock.now = 1001.0
    started = board.start(caller.project_id, job.id, resolved={"a": 1}, name="frog")
    assert (started.state, started.queued_at, started.resolved, started.name) == (QUEUED, 1001.0, {"a": 1}, "frog")
    assert not board.mark_uploading(caller.project_id, job.id, "jobs/x/other.zip")
    clock.now = 1002.0
    claimed = driver.claim()
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.started_at, claimed.owner) == (job.id, PREPARING, 1002.0, "worker-1")
    for state, following in ((PREPARING, TRAINING), (TRAINING, BUILDING), (BUILDING, PUBLISHING)):
        assert board.advance(job.id, state, following, "worker-1")
        assert not board.advance(job.id, state, following, "worker-1")
    assert board.advance(job.id, PUBLISHING, SUCCEEDED, "worker-1", output={"version": "x"})
    ended = board.get(caller.project_id, job.id)
    assert (ended.state, ended.completed_at, ended.output, ended.owner) == (SUCCEEDED, 1002.0, {"version": "x"}, None)
    assert ended.input_key == "jobs/x/input.zip"


def test_a_step_that_no_job_takes_is_a_mistake_of_ours(board: JobBoard) -> None:
    with pytest.raises(ValueError, match="no job goes from created to training"):
        board.advance("x", CREATED, TRAINING)


def test_starting_twice_starts_once(board: JobBoard, caller: Caller) -> None:
    job = board.create(caller, NewJob("tiyaro"))
    first = board.start(caller.project_id, job.id, name="first")
    second = board.start(caller.project_id, job.id, name="second")
    assert (first.name, second.name, second.state) == ("first", "first", QUEUED)
    with pytest.raises(Problem, match="there is no job nothing"):
        board.start(caller.project_id, "nothing")


def test_the_same_request_makes_one_job(board: JobBoard, caller: Caller, clock: Clock) -> None:
    keyed = Caller(caller.project_id, caller.key_id, caller.scopes, "k")
    first = board.create(keyed, NewJob("console"))
    assert board.create(keyed, NewJob("console")).id == first.id
    clock.now += 25 * 3600
    assert board.create(keyed, NewJob("console")).id != first.id


def test_the_same_request_at_once_makes_one_job(board: JobBoard, caller: Caller) -> None:
    """On PostgreSQL, none of them sees what the others have not committed."""
    made: list[str] = []
    for number in range(5):
        keyed, gate = Caller(caller.project_id, caller.key_id, caller.scopes, f"k{number}"), Barrier(4)

        def ask(keyed: Caller = keyed, gate: Barrier = gate) -> None:
            gate.wait()
            made.append(board.create(keyed, NewJob("console")).id)

        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(made), len(set(made))) == (20, 5)


def test_jobs_of_others_do_not_exist(board: JobBoard, caller: Caller) -> None:
    job_id = ready(board, caller)
    assert board.find("other", job_id) is None
    for act in (lambda: board.get("other", job_id), lambda: board.start("other", job_id), lambda: board.cancel("other", job_id, "me")):
        with pytest.raises(Problem) as raised:
            act()
        assert raised.value.status == 404
    assert not board.mark_uploading("other", job_id, "x")
    assert board.page("other").rows == []


def test_the_queue_is_limited(board: JobBoard, caller: Caller, driver: Driver) -> None:
    for _ in range(10):
        ready(board, caller)
    with pytest.raises(Problem) as raised:
        ready(board, caller)
    assert (raised.value.status, raised.value.retry_after) == (429, 60)
    waiting = board.create(caller, NewJob("tiyaro"))
    with pytest.raises(Problem):
        board.start(caller.project_id, waiting.id)
    driver.claim()
    assert board.start(caller.project_id, waiting.id).state == QUEUED


def test_jobs_are_taken_by_priority_then_in_order(board: JobBoard, caller: Caller, driver: Driver, clock: Clock) -> None:
    order = []
    for priority in (0, 5, 0, 5):
        clock.now += 1
        order.append(ready(board, caller, priority=priority))
    positions = [board.queue_position(board.get(caller.project_id, job_id)) for job_id in order]
    assert positions == [2, 0, 3, 1]
    taken = [job.id for job in iter(driver.claim, None)]
    assert taken == [order[1], order[3], order[0], order[2]]
    assert board.queue_position(board.get(caller.project_id, order[0])) is None


def test_a_project_that_runs_enough_waits(board: JobBoard, caller: Caller, services: Services, clock: Clock) -> None:
    driver = Driver(board, "w", "h", running_per_project=1)
    first, second = ready(board, caller), ready(board, caller)
    clock.now += 1
    other = Caller(services.keys.project("other"), caller.key_id, caller.scopes)
    theirs = ready(board, other)
    assert {job.id for job in iter(driver.claim, None)} == {min(first, second), theirs}
    board.advance(min(first, second), PREPARING, FAILED, error="x")
    claimed = driver.claim()
    assert claimed is not None
    assert claimed.id == max(first, second)


def test_no_job_is_taken_by_two(board: JobBoard, caller: Caller) -> None:
    expected = {ready(board, caller) for _ in range(10)}
    taken: list[str] = []
    gate = Barrier(4)

    def take(number: int) -> None:
        driver = Driver(board, f"w{number}", "h")
        gate.wait()
        taken.extend(job.id for job in iter(driver.claim, None))

    threads = [Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(expected)


@pytest.mark.parametrize("state", [CREATED, UPLOADING, QUEUED])
def test_what_does_not_run_is_canceled_at_once(state: str, board: JobBoard, caller: Caller) -> None:
    job = board.create(caller, NewJob("console", is_ready=state == QUEUED))
    if state == UPLOADING:
        board.mark_uploading(caller.project_id, job.id, "k")
    canceled = board.cancel(caller.project_id, job.id, "mia")
    assert (canceled.state, canceled.error, canceled.completed_at) == (CANCELED, "canceled by mia", 1000.0)
    assert board.cancel(caller.project_id, job.id, "ben").error == "canceled by mia"


def test_what_runs_is_asked_to_end_and_cannot_succeed_any_more(board: JobBoard, caller: Caller, driver: Driver) -> None:
    job_id = ready(board, caller)
    assert driver.claim()
    asked = board.cancel(caller.project_id, job_id, "mia")
    assert (asked.state, asked.is_canceling) == (PREPARING, True)
    assert not board.advance(job_id, PREPARING, TRAINING, "worker-1")
    assert board.advance(job_id, PREPARING, CANCELED, "worker-1", error="canceled by mia")
    assert not board.get(caller.project_id, job_id).is_canceling


def test_cancel_against_finish_has_one_winner(board: JobBoard, caller: Caller, driver: Driver) -> None:
    """Whoever comes second, in either order, changes nothing."""
    outcomes = []
    for _ in range(6):
        job_id = ready(board, caller)
        assert driver.claim()
        for state, following in ((PREPARING, TRAINING), (TRAINING, BUILDING), (BUILDING, PUBLISHING)):
            board.advance(job_id, state, following)
        gate, finished = Barrier(2), []

        def finish(job_id: str = job_id, gate: Barrier = gate, finished: list[bool] = finished) -> None:
            gate.wait()
            finished.append(board.advance(job_id, PUBLISHING, SUCCEEDED, output={}))

        thread = Thread(target=finish)
        thread.start()
        gate.wait()
        asked = board.cancel(caller.project_id, job_id, "mia")
        thread.join()
        job = board.get(caller.project_id, job_id)
        assert finished == [job.state == SUCCEEDED]
        assert (asked.state == SUCCEEDED) == finished[0]
        assert job.is_canceling != finished[0]
        outcomes.append(finished[0])
    assert len(outcomes) == 6


def test_a_worker_that_was_replaced_changes_nothing(board: JobBoard, caller: Caller, driver: Driver, clock: Clock) -> None:
    job_id = ready(board, caller)
    assert driver.claim()
    second = Driver(board, "worker-2", "host-1")
    assert second.take_over() is None
    clock.now += LEASE_SECONDS / 2
    assert driver.heartbeat() == 1
    clock.now += LEASE_SECONDS / 2 + 1
    assert second.take_over() is None
    clock.now += LEASE_SECONDS
    taken = second.take_over()
    assert taken is not None
    assert (taken.id, taken.owner, taken.state) == (job_id, "worker-2", PREPARING)
    assert driver.change(job_id, progress={"step": 1}) is None
    assert not board.advance(job_id, PREPARING, TRAINING, "worker-1")
    assert driver.heartbeat() == 0
    changed = second.change(job_id, progress={"step": 2})
    assert changed is not None
    assert changed.progress == {"step": 2}


def test_jobs_of_another_machine_are_left_to_it_for_a_while(board: JobBoard, caller: Caller, driver: Driver, clock: Clock) -> None:
    ready(board, caller)
    assert driver.claim()
    elsewhere = Driver(board, "worker-2", "host-2")
    clock.now += LEASE_SECONDS + 1
    assert elsewhere.take_over() is None
    clock.now += HOST_GONE_SECONDS
    assert elsewhere.take_over() is not None


def test_a_service_that_stops_leaves_its_jobs_to_the_next(board: JobBoard, caller: Caller, driver: Driver) -> None:
    job_id = ready(board, caller)
    assert driver.claim()
    driver.release()
    taken = Driver(board, "worker-2", "host-1").take_over()
    assert taken is not None
    assert taken.id == job_id


def test_pages_go_forth_and_back_while_jobs_are_added(board: JobBoard, caller: Caller, clock: Clock) -> None:
    ids = []
    for _ in range(5):
        clock.now += 1
        ids.append(board.create(caller, NewJob("console")).id)
    newest = ids[::-1]
    first = board.page(caller.project_id, limit=2)
    assert ([job.id for job in first.rows], first.previous) == (newest[:2], None)
    clock.now += 1
    board.create(caller, NewJob("console"))
    second = board.page(caller.project_id, limit=2, cursor=first.next)
    third = board.page(caller.project_id, limit=2, cursor=second.next)
    assert [job.id for job in (*second.rows, *third.rows)] == newest[2:]
    assert third.next is None
    back = board.page(caller.project_id, limit=2, cursor=third.previous)
    assert [job.id for job in back.rows] == newest[2:4]
    assert [job.id for job in board.page(caller.project_id, limit=2, cursor=back.previous).rows] == newest[:2]


def test_pages_of_some_states_and_apis(board: JobBoard, caller: Caller) -> None:
    job_id = ready(board, caller)
    board.create(caller, NewJob("tiyaro"))
    assert [job.id for job in board.page(caller.project_id, apis=["console", "dreambooth"]).rows] == [job_id]
    assert [job.id for job in board.page(caller.project_id, states=[QUEUED]).rows] == [job_id]


def test_pages_of_two_tables_are_one_list(board: JobBoard, caller: Caller, clock: Clock) -> None:
    times = {"jobs": (1.0, 2.0, 5.0, 6.0, 7.0), "keys": (3.0, 4.0, 8.0)}
    for clock.now in times["jobs"]:
        ready(board, caller)
    with board.database.writing() as session:
        for created_at in times["keys"]:
            session.add(ApiKey(id=f"k{created_at}", project_id=caller.project_id, name="", digest="", scopes=[], created_at=created_at))
    tables = {Job: [Job.project_id == caller.project_id], ApiKey: [ApiKey.id.like("k%")]}

    def page(cursor: str | None) -> Page[Any]:
        with board.database.reading() as session:
            return page_of_several(session, tables, cursor, 3)

    first = page(None)
    second = page(first.next)
    third = page(second.next)
    assert [[row.created_at for row in found.rows] for found in (first, second, third)] == [[8, 7, 6], [5, 4, 3], [2, 1]]
    assert (first.previous, third.next) == (None, None)
    assert [row.created_at for row in page(third.previous).rows] == [5, 4, 3]


@pytest.mark.parametrize("cursor", ["x", "bm9wZQ", "W10", "WyJuZXh0IiwgIngiLCAiYSJd", "\0", "=====", "WyJuZXh0IiwgMSwgMV0"])
def test_a_cursor_that_nobody_gave(cursor: str, board: JobBoard, caller: Caller) -> None:
    with pytest.raises(Problem) as raised:
        board.page(caller.project_id, cursor=cursor)
    assert (raised.value.status, raised.value.field) == (400, "cursor")


def test_webhooks_and_audit_are_written_with_the_change(board: JobBoard, caller: Caller, driver: Driver, services: Services) -> None:
    wanted = NewJob("console", webhook="https://example.org/?a=1", webhook_events=("start", "output", "completed"), is_ready=True)
    job_id = board.create(caller, wanted).id
    services.outbox.show_jobs_of("console", lambda job: {"id": job.id, "status": job.state})
    assert driver.claim()
    for state, following in ((PREPARING, TRAINING), (TRAINING, BUILDING), (BUILDING, PUBLISHING)):
        board.advance(job_id, state, following)
    board.announce_logs(job_id)
    board.advance(job_id, PUBLISHING, SUCCEEDED, output={"version": "v"})
    with services.database.reading() as session:
        messages = session.scalars(select(WebhookMessage).order_by(WebhookMessage.number)).all()
        actions = session.scalars(select(AuditEntry.action).where(AuditEntry.subject_id == job_id).order_by(AuditEntry.number)).all()
    assert [(message.event, message.is_final) for message in messages] == [("start", False), ("output", False), ("completed", True)]
    assert messages[2].body == f'{{"id": "{job_id}", "status": "succeeded"}}'
    assert len({message.id for message in messages}) == 3
    assert actions == ["job created", "job preparing", "job succeeded"]


def test_no_change_no_webhook(board: JobBoard, caller: Caller, services: Services) -> None:
    job_id = ready(board, caller, webhook="https://example.org", webhook_events=("completed",))
    board.cancel(caller.project_id, job_id, "mia")
    board.cancel(caller.project_id, job_id, "mia")
    assert not board.advance(job_id, QUEUED, FAILED)
    with services.database.reading() as session:
        assert len(session.scalars(select(WebhookMessage)).all()) == 1
