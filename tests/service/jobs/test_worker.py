"""Real processes: the service is killed with -9 and started again, the job is killed, the job is canceled."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from service.database.engine import Database
from service.database.tables import Job
from service.executors.base import Spec
from service.executors.devices import Devices
from service.executors.local import LocalExecutor
from service.jobs import worker as module
from service.jobs.board import JobBoard, NewJob
from service.jobs.states import CANCELED, FAILED, FINAL, PREPARING, QUEUED, SUCCEEDED, TRAINING
from service.jobs.worker import Worker, lives, own_name
from service.keys import Caller, Keys
from service.settings import ServiceSettings
from service.webhooks.outbox import Outbox
from tests.service.jobs.job_worker import Short
from tests.service.waiting import wait_until

PROGRAM = Path(__file__).with_name("job_worker.py")
ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="it forks, and ignores SIGTERM")


class Place:
    """A database, a folder, and workers that are started and killed."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.board = JobBoard(database, Outbox(), 10)
        self.caller = Caller(Keys(database).project("p"), "k", frozenset())
        self.workers: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        url = self.database.engine.url.render_as_string(hide_password=False)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.workers.append(subprocess.Popen([sys.executable, str(PROGRAM), url, str(self.folder)], env=environment))

    def kill(self) -> None:
        worker = self.workers.pop()
        worker.kill()
        worker.wait()

    def job(self) -> str:
        job_id = self.board.create(self.caller, NewJob("console", is_ready=True)).id
        (self.folder / job_id).mkdir(parents=True)
        return job_id

    def get(self, job_id: str) -> Job:
        return self.board.get(self.caller.project_id, job_id)

    def runs(self, job_id: str) -> list[int]:
        path = self.folder / job_id / "runs"
        return [int(line) for line in path.read_text(encoding="utf-8").split()] if path.exists() else []

    def go(self, job_id: str) -> None:
        (self.folder / job_id / "go").touch()

    def end(self, job_id: str) -> Job:
        wait_until(lambda: self.get(job_id).state in FINAL)
        return self.get(job_id)

    def living(self, job_id: str) -> list[int]:
        """All processes of the job."""
        return [process.pid for process in psutil.process_iter() if str(self.folder / job_id) in " ".join(_words(process))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    place = Place(database, tmp_path / "jobs")
    yield place
    for worker in place.workers:
        worker.kill()
        worker.wait()
    for folder in place.folder.iterdir():
        if folder.name != "runs":
            (folder / "go").touch()


def test_a_training_outlives_the_service_and_ends_once(place: Place) -> None:
    job_id = place.job()
    place.begin()
    wait_until(lambda: place.runs(job_id))
    place.kill()
    place.go(job_id)
    wait_until(lambda: not place.living(job_id))
    assert place.get(job_id).state == TRAINING
    place.begin()
    job = place.end(job_id)
    assert (job.state, len(place.runs(job_id)), job.restarts) == (SUCCEEDED, 1, 0)


def test_a_training_that_dies_while_nobody_looks_is_begun_again(place: Place) -> None:
    job_id = place.job()
    place.begin()
    wait_until(lambda: place.runs(job_id))
    place.kill()
    living = [psutil.Process(pid) for pid in place.living(job_id)]
    runners = {each for process in living for each in process.parents()[:-1] if "runner" in " ".join(_words(each))}
    for each in (*runners, *living):
        with suppress(psutil.NoSuchProcess):  # it went with its runner
            each.kill()
    place.begin()
    wait_until(lambda: len(place.runs(job_id)) == 2)
    place.go(job_id)
    job = place.end(job_id)
    assert (job.state, job.restarts) == (SUCCEEDED, 1)


def test_a_training_that_is_killed_fails_with_the_reason(place: Place) -> None:
    job_id = place.job()
    place.begin()
    wait_until(lambda: place.runs(job_id))
    os.kill(place.runs(job_id)[0], signal.SIGKILL)
    job = place.end(job_id)
    assert (job.state, len(place.runs(job_id))) == (FAILED, 1)
    assert "SIGKILL" in str(job.error)


def test_a_training_that_will_not_end_is_killed_with_all_it_has_started(place: Place) -> None:
    job_id = place.job()
    place.begin()
    wait_until(lambda: place.runs(job_id))
    wait_until(lambda: len(place.living(job_id)) >= 2)
    asked = place.board.cancel(place.caller.project_id, job_id, "mia")
    assert asked.is_canceling
    job = place.end(job_id)
    assert (job.state, job.error) == (CANCELED, "canceled by mia")
    wait_until(lambda: not place.living(job_id))


def test_devices_are_given_to_as_many_jobs_as_there_are(place: Place) -> None:
    jobs = [place.job() for _ in range(3)]
    place.begin()
    wait_until(lambda: sum(bool(place.runs(job_id)) for job_id in jobs) == 2)
    states = {job_id: place.get(job_id) for job_id in jobs}
    assert sorted(job.device or "" for job in states.values()) == ["", "cpu", "cpu-2"]
    assert sorted(job.state for job in states.values()) == [QUEUED, TRAINING, TRAINING]
    for job_id in jobs:
        place.go(job_id)
    assert {place.end(job_id).state for job_id in jobs} == {SUCCEEDED}


def test_a_worker_that_stops_frees_its_jobs(database: Database, tmp_path: Path) -> None:
    worker = Worker(JobBoard(database, Outbox(), 10), ServiceSettings(data_dir=tmp_path), LocalExecutor(tmp_path), Devices(("cpu",)), {})
    worker.start()
    worker.stop()
    assert not worker._loop.is_alive()


@pytest.mark.parametrize("asks", [True, False])
def test_what_a_stopping_worker_works_on_is_left_before_others_get_it(
    asks: bool, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that looks whether to stop is left at once; one that cannot look, such as a large copy, is not released at all."""
    begun, go = threading.Event(), threading.Event()

    class Long(Short):
        def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
            begun.set()
            while not (should_stop() if asks else go.is_set()):
                go.wait(0.01)
            return None

    monkeypatch.setattr(module, "STOP_SECONDS", 60.0 if asks else 0.05)
    board = JobBoard(database, Outbox(), 10)
    caller = Caller(Keys(database).project("p"), "k", frozenset())
    job_id = board.create(caller, NewJob("console", is_ready=True)).id
    stages = {PREPARING: Long(PREPARING, tmp_path)}
    worker = Worker(board, ServiceSettings(data_dir=tmp_path), LocalExecutor(tmp_path), Devices(("cpu",)), stages, "first")
    worker.start()
    assert begun.wait(60)
    worker.stop()
    left = board.get(caller.project_id, job_id)
    assert (left.state, left.owner) == (PREPARING, None if asks else "first")
    (thread,) = worker._threads.values()
    assert thread.is_alive() is not asks
    go.set()
    thread.join()


def test_a_process_is_known_by_its_name() -> None:
    assert lives(own_name())
    assert not lives(own_name() + "0")
    assert not lives("other-boot:1:1")
    assert not lives("nonsense")
