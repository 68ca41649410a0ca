"""What all executors share: what is to run, in which limits, what has become of it, and the five verbs."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

Handle: TypeAlias = str
State: TypeAlias = Literal["waiting", "running", "ended", "lost"]
Sandbox: TypeAlias = Literal["auto", "always", "never"]

GRACE_SECONDS = 30.0  # from SIGTERM to SIGKILL; as long as a training needs to finish its step and save
STOPPED_CODE = 143  # 128 + SIGTERM
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")  # of handles: a folder, a job of Slurm and one of Ray are named so


class ExecutorUnavailable(Exception):
    """The queue cannot be asked at the moment; nothing is known to have happened to the job. Ask again later."""


class Limits(NamedTuple):
    """What a job may use up."""

    seconds: float = 24 * 3600.0  # then it gets SIGTERM, and has its grace
    file_bytes: int = 50 << 30  # of one file that it writes
    folder_bytes: int = 100 << 30  # of all that lies in its folder
    open_files: int = 4096
    processes: int = 512  # and threads, on top of those that the user has when it starts
    log_bytes: int = 50 << 20  # what is more is left out between the beginning and the end


class Spec(NamedTuple):
    """One process to run, or several of one training, and where."""

    job_id: str
    stage: str
    argv: tuple[str, ...]  # the program and what it is told; with several processes: Python, a script, its options
    cwd: Path
    environment: dict[str, str]  # besides what every job gets (runner.py)
    log: Path  # what it prints is added to this file
    folder: Path  # the only folder in which it may write, besides its own /tmp
    attempt: int = 1
    processes: int = 1  # on each node
    nodes: int = 1
    device: str | None = None  # the slot on this machine (devices.py); None: no GPU, or what the queue assigns
    limits: Limits = Limits()
    readable: tuple[Path, ...] = ()  # what it may read besides the system, Python and this project: models
    network: bool = False  # jobs of several nodes have it in any case
    sandbox: Sandbox = "auto"  # this and what follows is the executor's to say
    hidden: tuple[Path, ...] = ()  # folders of the service that a sandboxed job must not see
    gives_way: bool = False  # to all else on the machine, where the service answers people on the same one

    @property
    def handle(self) -> Handle:
        """The name under which every executor can find it again: stored before it is submitted."""
        return handle_of(self.job_id, self.stage, self.attempt)


class Status(NamedTuple):
    """What has become of a job. `lost`: it runs no more, by no fault of its own (a reboot, a node that failed), and may be tried again."""

    state: State
    exit_code: int | None = None  # 128 + n where signal n killed it
    reason: str = ""  # one line; of what ended with 0: empty
    node: str | None = None  # where it runs or ran


class Executor(Protocol):
    """Runs jobs. Every verb can be repeated, after a crash, too; all raise ExecutorUnavailable where there is no answer."""

    keeps_queue: bool  # whether it takes any number of jobs and starts them when there is room; else slots are given out (devices.py)

    @property
    def statement(self) -> str:
        """One line for people: how jobs are kept apart."""

    def submit(self, spec: Spec) -> Handle:
        """Have it run, once, however often this is called with one handle."""

    def status(self, handle: Handle) -> Status:
        """What has become of it."""

    def logs(self, handle: Handle, offset: int = 0, most: int = 1 << 20) -> bytes:
        """What it has printed, from this byte on, at most so many bytes."""

    def cancel(self, handle: Handle, grace: float = GRACE_SECONDS) -> None:
        """End it and all it has started: SIGTERM, and SIGKILL to what is left after `grace` seconds. Does not wait."""

    def adopt(self, handle: Handle) -> Status | None:
        """After a restart of the service: what has become of it; None where it never came to be submitted: submit it."""


def handle_of(job_id: str, stage: str, attempt: int) -> Handle:
    """tadpole-<job id>-<stage>-<attempt>"""
    return checked(f"tadpole-{job_id}-{stage}-{attempt}")


def checked(handle: Handle) -> Handle:
    """The handle, if it is one: it becomes a part of paths and commands."""
    if not NAME.fullmatch(handle):
        raise ValueError(f"handle {handle!r}: letters, digits, '.', '_' and '-' only, 200 at most")
    return handle
