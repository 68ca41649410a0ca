"""Two services on one PostgreSQL: no job is lost, none runs twice, and it does not matter which of them is asked."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import psutil
import pytest

from tests.service_real.postgresql_server import postgresql_server
from tests.service_real.real_service import SHORT, RealService, wait_for
from tests.service_real.two_services import Pair, two_services

JOBS = 10


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with postgresql_server() as server, two_services(tmp_path_factory.mktemp("pair"), server) as pair:
        yield pair


def test_each_job_runs_once_and_is_told_once(pair: Pair) -> None:
    names = [f"one-of-many-{number}" for number in range(JOBS)]
    with ThreadPoolExecutor(JOBS) as clients:
        jobs = dict(zip(names, clients.map(pair.job, cycle(pair.services), names), strict=False))
    for name, job_id in jobs.items():
        pair.ended_right(name, job_id)
        assert [service.log(job_id) for service in pair.services] == [f"3 pictures, 0 of the class\ntraining of {name}\n"] * 2
    attempts = pair.server.rows("SELECT DISTINCT attempts, last_status FROM outbox WHERE url LIKE %s", "%/one-of-many-%")
    assert attempts == [(1, 200)]


def test_a_job_of_the_one_is_canceled_at_the_other(pair: Pair) -> None:
    job_id = pair.job(pair.services[0], "canceled", "wait")
    (process,) = pair.runs("canceled")
    (other,) = [service for service in pair.services if not pair.drives(service, job_id)]
    assert other.post(f"/v1/trainings/{job_id}/cancel", {}).json()["status"] in ("processing", "canceled")
    for service in pair.services:
        job = service.over(job_id)
        assert job["state"] == "canceled"
        assert job["error"].startswith("canceled by key ")
    assert not psutil.pid_exists(process)
    assert [status for status, _ in pair.told("canceled")] == ["processing", "canceled"]


def test_the_one_that_is_left_brings_the_training_of_a_killed_one_to_its_end(pair: Pair) -> None:
    job_id = pair.job(pair.services[0], "orphan", "wait")
    (process,) = pair.runs("orphan")
    assert [status for status, _ in pair.told("orphan")] == ["processing"]  # one that is on its way as its sender dies comes twice
    (killed,) = [service for service in pair.services if pair.drives(service, job_id)]
    kill(pair, killed)
    wait_for(lambda: pair.drives(pair.services[0], job_id), 60, "the other one to take it over")
    pair.begin_again()
    assert psutil.pid_exists(process)  # it trains on
    pair.trainer.go("orphan")
    pair.ended_right("orphan", job_id)
    assert pair.trainer.runs("orphan") == [process]


def test_a_service_that_is_killed_among_many_jobs_loses_none(pair: Pair) -> None:
    """Wherever each of them just is. A message that was on its way is sent again, and known by its id."""
    names = [f"in-the-middle-{number}" for number in range(6)]
    jobs = {name: pair.job(service, name) for name, service in zip(names, cycle(pair.services), strict=False)}
    pair.runs(names[1])
    killed, left = pair.services
    kill(pair, killed)
    for name, job_id in jobs.items():
        assert left.over(job_id)["state"] == "succeeded"
        assert len(pair.trainer.runs(name)) == 1
        assert len(set(pair.told(name))) == 3
    pair.begin_again()


def test_a_request_that_comes_to_both_at_once_makes_one_job(pair: Pair) -> None:
    for attempt in range(5):
        name = f"twice-{attempt}"
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda service, name=name: pair.ask(service, name, **{"Idempotency-Key": name}), pair.services * 2))
        codes = sorted(answer.status_code for answer in answers)
        assert codes[0] == 201 and set(codes) <= {201, 409}, codes  # 409: it is being worked on, ask again
        again = [pair.ask(service, name, **{"Idempotency-Key": name}) for service in pair.services]
        assert [answer.headers["Idempotent-Replayed"] for answer in again] == ["true", "true"]
        (job_id,) = {answer.json()["id"] for answer in (*answers, *again) if answer.status_code == 201}
        assert pair.server.rows("SELECT count(*) FROM jobs WHERE webhook LIKE %s", f"%/{name}") == [(1,)]
        pair.ended_right(name, job_id)


def test_a_real_training_is_shown_by_both(pair: Pair) -> None:
    first, second = pair.services
    body = {"input": {**SHORT, "instance_data": pair.pictures}, "model": "default/frog"}
    made = first.post("/v1/trainings", body).json()
    assert second.over(made["id"])["state"] == "succeeded"
    shown = [service.get(f"/v1/trainings/{made['id']}") for service in pair.services]
    assert shown[0]["version"] == shown[1]["version"]
    versions = [service.get("/v1/models/default/frog/versions")["results"] for service in pair.services]
    assert len(versions[0]) == 1 and versions[0] == versions[1]


def kill(pair: Pair, service: RealService) -> None:
    service.process.kill()
    service.process.wait()
    pair.services.remove(service)
    service.close()
