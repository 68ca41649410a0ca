"""Runs jobs as processes of this machine that outlive the service."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.executors import processes
from service.executors.base import GRACE_SECONDS, Handle, Sandbox, Spec, Status
from service.executors.devices import visible
from service.executors.ending import DISK_FULL, DISK_FULL_CODE
from service.executors.environment import inherited
from service.executors.nodes import runner_command
from service.executors.records import Record, record_of
from service.executors.sandbox import statement

NODES = "several nodes need Slurm: executor = \"slurm\""


class LocalExecutor:
    """Starts a runner for each job, detached. What becomes of the job is read from the runner's files in `folder`.

    `hidden`: folders of the service that jobs must not see, where they run in a sandbox.
    """

    keeps_queue = False

    def __init__(self, folder: Path, sandbox: Sandbox = "auto", hidden: Sequence[Path] = ()) -> None:
        self._folder, self._sandbox = folder.resolve(), sandbox
        self._hidden = tuple(path.resolve() for path in hidden)
        self._runners: dict[Handle, subprocess.Popen[bytes]] = {}

    @property
    def statement(self) -> str:
        """One line for people: how jobs are kept apart."""
        return statement(self._sandbox)

    def submit(self, spec: Spec) -> Handle:
        """Start it, unless it has been started under this handle."""
        if spec.nodes > 1:
            raise ValueError(NODES)
        record = record_of(self._folder, spec.handle)
        if record.start() is None and record.exit() is None:
            environment = {**spec.environment, **visible(spec.device)}
            spec = spec._replace(environment=environment, sandbox=self._sandbox, hidden=self._hidden, gives_way=True)
            record.write_spec(spec)
            self._runners[spec.handle] = self._start(record)
        return spec.handle

    def _start(self, record: Record) -> subprocess.Popen[bytes]:
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
        with record.errors.open("ab") as errors:
            return subprocess.Popen(
                runner_command(record.folder),
                cwd=record.folder,
                env=inherited(),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                **apart,
            )

    def status(self, handle: Handle) -> Status:
        runner = self._runners.get(handle)
        code = None if runner is None else runner.poll()  # before the record is read: what ends in between has left one
        known = self.adopt(handle)
        if known is not None:
            return known
        if code:
            return Status("lost", reason=DISK_FULL if code == DISK_FULL_CODE else "its runner could not start")
        is_starting = runner is not None and code is None
        if is_starting or record_of(self._folder, handle).is_fresh():
            return Status("waiting")
        return Status("lost", reason="it was never started")

    def adopt(self, handle: Handle) -> Status | None:
        record = record_of(self._folder, handle)
        if (ended := record.exit()) is not None:
            if (runner := self._runners.pop(handle, None)) is not None:
                runner.wait()  # that was its last deed
            return ended
        started = record.start()
        if started is None:
            return record.canceled_before_start()
        if processes.boot_id() == started["boot_id"] and processes.start_of(started["pid"]) == started["start"]:
            return Status("running", node=started["node"])
        if (ended := record.exit()) is not None:  # it ended while we looked
            return ended
        return self._lost(handle, started)

    def _lost(self, handle: Handle, started: dict[str, Any]) -> Status:
        if processes.boot_id() != started["boot_id"]:
            return Status("lost", reason="the machine was started anew while it ran", node=started["node"])
        processes.kill_those_of(handle)  # what the runner could not: nothing of the job may run beside the next attempt
        return Status("lost", reason="its runner was killed", node=started["node"])

    def logs(self, handle: Handle, offset: int = 0, most: int = 1 << 20) -> bytes:
        return record_of(self._folder, handle).logs(offset, most)

    def cancel(self, handle: Handle, grace: float = GRACE_SECONDS) -> None:
        record_of(self._folder, handle).ask_to_end(grace)
