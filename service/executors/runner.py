"""Runs one job, apart from whoever asked for it: `python -I -S runner.py RECORD`, or on each of several nodes `... RECORD node`.

It outlives the service, ends with all that the job has started, and says in exit.json how it went. Standard library only.
"""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

if __package__ in (None, ""):  # started as a file: the folder of the project is where modules are found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from service.executors import processes
from service.executors.base import GRACE_SECONDS, STOPPED_CODE, Spec, State, Status
from service.executors.child import Child
from service.executors.ending import DISK_FULL, DISK_FULL_CODE, USER_MISTAKE_CODE, exit_code_of, explanation
from service.executors.environment import STATUS_FILE, environment_of
from service.executors.nodes import on_all_nodes, on_this_node
from service.executors.output import open_log
from service.executors.records import BEFORE_START, Record, text_of
from service.executors.sandbox import SandboxMissing, is_used, wrapped
from service.executors.temporary import temporary_folder
from service.storage.space import means_full

TICK_SECONDS = 0.2  # so soon it is seen that somebody asked to end
FOLDER_CHECK_SECONDS = 30.0
SWEEP_SECONDS = 5.0  # for what is left when the job has ended by itself
QUEUE_GRACE_SECONDS = 25.0  # Slurm kills after 30 s, and we need a moment to tell how it ended
NOT_STARTED_CODE = 126
CANNOT_START = (OSError, ValueError, subprocess.SubprocessError, SandboxMissing)  # ValueError: of arguments that no system takes
INTERRUPTED = "it was interrupted (SIGTERM): the machine goes down, or the queue needs its place"
STDOUT = 1


class Stop(NamedTuple):
    """Why a job is to end, and how many seconds it gets for that."""

    reason: str
    grace: float = GRACE_SECONDS


class Supervisor:
    """Watches one job until nothing of it is left."""

    def __init__(self, record: Record, spec: Spec) -> None:
        self._record, self._limits, self._folder = record, spec.limits, spec.folder
        self._started = self._folder_checked = time.monotonic()
        self._terminated = False
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # Windows has no SIGHUP
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """SIGTERM comes from the queue that started us; what the terminal of whoever asked sends is none of our business."""
        self._terminated = self._terminated or number == signal.SIGTERM

    def watch(self, child: Child) -> str:
        """Until it has ended, by itself or not: why it was made to end, or an empty line."""
        reason, kill_at, is_heard = "", float("inf"), False
        while not child.has_ended():
            child.wait(TICK_SECONDS)
            if not reason:
                stop = self._stop()
                if stop and not child.has_ended():  # else it has ended by itself, whatever came after that
                    reason, kill_at = stop.reason, time.monotonic() + stop.grace
                    is_heard = child.terminate()
            elif time.monotonic() > kill_at:
                child.kill()
            elif not is_heard:
                is_heard = child.terminate()
        child.sweep(min(SWEEP_SECONDS, kill_at - time.monotonic()))
        return reason

    def _stop(self) -> Stop | None:
        now = time.monotonic()
        grace = self._record.asked_to_end()
        if grace is not None:
            return Stop("canceled", grace)
        if self._terminated:
            return Stop(INTERRUPTED, QUEUE_GRACE_SECONDS)
        if now - self._started > self._limits.seconds:
            return Stop(f"it ran longer than the {self._limits.seconds:g} seconds that it may")
        if now - self._folder_checked > FOLDER_CHECK_SECONDS:
            self._folder_checked = now
            if size_of(self._folder) > self._limits.folder_bytes:
                return Stop(f"its folder grew beyond the {self._limits.folder_bytes} bytes that it may have")
        return None


def size_of(folder: Path) -> int:
    """Bytes of all files in it; links are not followed, and what vanishes meanwhile counts nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(path, name).lstat().st_size
            except OSError:
                continue
    return total


def main(arguments: list[str]) -> int:
    record = Record(Path(arguments[0]))
    spec = record.spec()
    if spec is None:
        print(f"{record.folder}: there is no job to run", file=sys.stderr)
        return USER_MISTAKE_CODE
    os.umask(0o077)
    processes.adopt_orphans()
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    supervisor = Supervisor(record, spec)
    if arguments[1:] == ["node"]:
        return run_here(record, spec, supervisor, STDOUT)[0]
    me = {"pid": os.getpid(), "start": processes.start_of(os.getpid()), "boot_id": processes.boot_id()}
    try:
        if not record.claim(**me, node=node, time=time.time()):
            return 0  # another runner has it
    except OSError as error:
        return DISK_FULL_CODE if means_full(error) else NOT_STARTED_CODE
    code, reason = run(record, spec, supervisor)
    state: State = "lost" if reason == INTERRUPTED and code != 0 else "ended"
    record.write_exit(Status(state, code, reason or explanation(code, spec.log), node))
    return code


def run(record: Record, spec: Spec, supervisor: Supervisor) -> tuple[int, str]:
    """The job's exit code, and why it did not end by itself."""
    if record.asked_to_end() is not None:
        return STOPPED_CODE, BEFORE_START
    try:
        log = open_log(spec.log)
        return run_everywhere(record, spec, supervisor, log) if spec.nodes > 1 else run_here(record, spec, supervisor, log)
    except CANNOT_START as error:
        return NOT_STARTED_CODE, DISK_FULL if means_full(error) else f"it could not be started: {error}"


def run_everywhere(record: Record, spec: Spec, supervisor: Supervisor, log: int) -> tuple[int, str]:
    """The same for the job on all nodes. Once it fails on one, srun ends it on the others, and has the highest of their codes,
    which need not be the cause."""
    command, environment = on_all_nodes(spec, record.folder)
    child = Child(command, spec.cwd, environment, log, None)
    reason = supervisor.watch(child)
    return exit_code_of(child.exit_code(), *record.nodes(spec.nodes)), reason


def run_here(record: Record, spec: Spec, supervisor: Supervisor, log: int) -> tuple[int, str]:
    """The same for the job on this node."""
    with temporary_folder(record.folder) as temporary:
        command = on_this_node(spec)
        sandboxed = is_used(spec.sandbox)
        environment = environment_of(spec, Path("/tmp") if sandboxed else temporary.name)
        if sandboxed:
            command = wrapped(command, spec, temporary.folder)
        child = Child(command, Path("/") if sandboxed else spec.cwd, environment, log, spec.limits, spec.gives_way)
        reason = supervisor.watch(child)
        code, told = child.exit_code(), text_of(temporary.folder / Path(environment[STATUS_FILE]).name)
        if spec.nodes > 1 and not reason:  # a node that was made to end is no cause
            record.write_node(os.environ["SLURM_NODEID"], f"{told}\nlauncher {code}\n")
        return exit_code_of(code, told), reason


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
