"""The worker: claims jobs when a device is free, takes over those of dead workers, and drives each in a thread of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from service.database.tables import Job
from service.executors.base import Executor
from service.executors.devices import Devices
from service.executors.processes import boot_id, start_of
from service.jobs.board import JobBoard
from service.jobs.drive import Drive, Lost
from service.jobs.driving import HEARTBEAT_SECONDS, Driver
from service.jobs.stages import Stage
from service.settings import ServiceSettings

POLL_SECONDS = 1.0
STOP_SECONDS = 10.0  # that threads get to leave their jobs
MOST_JOBS = 64  # at a time, where a queue such as Slurm's decides when they run
log = logging.getLogger("service.worker")


def own_name() -> str:
    """Tells this process from all others of this machine, now and later: whoever finds it gone may take its jobs."""
    return f"{boot_id()}:{os.getpid()}:{start_of(os.getpid())}"


def lives(owner: str) -> bool:
    """Whether the process of this name, of this machine, runs."""
    boot, _, process = owner.partition(":")
    pid, _, start = process.partition(":")
    return boot == boot_id() and pid.isdecimal() and start_of(int(pid)) == start


class Worker:
    """`start` has it work in the background; `turn` is one round of that."""

    def __init__(
        self, board: JobBoard, settings: ServiceSettings, executor: Executor, devices: Devices, stages: Mapping[str, Stage],
        name: str | None = None,
    ):  # fmt: skip
        self._driver = Driver(board, name or own_name(), socket.gethostname(), settings.running_jobs_per_project)
        self._executor, self._devices = executor, devices
        self._most_jobs = settings.running_jobs or MOST_JOBS
        self._stopping = threading.Event()
        self._drive = Drive(self._driver, stages, executor, self._wait, settings.cancel_grace_seconds, self._stopping.is_set)
        self._threads: dict[str, threading.Thread] = {}  # by the job's id
        self._loop = threading.Thread(target=self._run, name="worker", daemon=True)
        self._beat_at = float("-inf")

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        """Jobs run on; the next worker finds them. What could not be left in time is nobody else's before this process has ended."""
        self._stopping.set()
        if self._loop.ident is not None:
            self._loop.join(STOP_SECONDS)
        for thread in self._threads.values():
            thread.join(STOP_SECONDS)
        self._driver.release(except_for=[job_id for job_id, thread in self._threads.items() if thread.is_alive()])

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception:  # the database is away: the jobs are not
                log.exception("the worker could not look for jobs")
            self._stopping.wait(POLL_SECONDS)

    def turn(self) -> None:
        """Keep what is ours, and take what is to be had."""
        if time.monotonic() - self._beat_at >= HEARTBEAT_SECONDS:
            self._driver.heartbeat()
            self._driver.disown(lambda owner: not lives(owner))
            self._beat_at = time.monotonic()
        self._threads = {job_id: thread for job_id, thread in self._threads.items() if thread.is_alive()}
        self._take_all(self._driver.take_over)
        self._take_all(lambda: self._driver.claim(self._choose) if len(self._threads) < self._most_jobs else None)

    def _take_all(self, take: Callable[[], Job | None]) -> None:
        while not self._stopping.is_set() and (job := take()) is not None:
            thread = threading.Thread(target=self._drive_job, args=(job,), name=f"job-{job.id}", daemon=True)
            self._threads[job.id] = thread
            thread.start()

    def _drive_job(self, job: Job) -> None:
        mine: Job | None = job
        while mine is not None and not self._stopping.is_set():
            try:
                self._drive.run(mine)
                mine = self._driver.mine(job.id)
            except Exception:  # again the database: the job is driven on from what its row then says
                log.exception("job %s could not be driven", job.id)
            self._stopping.wait(POLL_SECONDS)

    def _choose(self, taken: Sequence[str]) -> str | None:
        return "" if self._executor.keeps_queue else self._devices.take(taken)

    def _wait(self) -> None:
        if self._stopping.wait(POLL_SECONDS):
            raise Lost
