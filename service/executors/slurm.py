"""Runs jobs by Slurm, on one node or several. The folder of the runs has to lie on a disk that all nodes share."""
from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from library.errors import UserError
from service.executors.base import GRACE_SECONDS, STOPPED_CODE, ExecutorUnavailable, Handle, Sandbox, Spec, Status
from service.executors.nodes import runner_command
from service.executors.records import Record, record_of

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")  # by no fault of the job: it may be tried again
CODES = {"COMPLETED": 0, "CANCELLED": STOPPED_CODE, "TIMEOUT": STOPPED_CODE, "DEADLINE": STOPPED_CODE, "OUT_OF_MEMORY": 137}
KILL_WAIT_SECONDS = 30.0  # Slurm's default, from SIGTERM to SIGKILL
TELLING_SECONDS = 5.0  # of which the runner needs a moment to say how the job ended
COMMAND_SECONDS = 60.0
FORGOTTEN = "Invalid job id"  # what scontrol says of a job that is over for some minutes


class QueuedJob(NamedTuple):
    """What Slurm knows of a job."""

    number: str
    state: str
    nodes: str
    why_it_waits: str


class SlurmExecutor:
    """Submits a runner for each job. `options`: more for sbatch, such as --partition=gpu.

    `gpus`: how many each process of a job gets.
    """

    keeps_queue = True

    def __init__(
        self, folder: Path, sandbox: Sandbox = "auto", hidden: Sequence[Path] = (), options: Sequence[str] = (), gpus: int = 0
    ) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise UserError(f'executor = "slurm": {", ".join(missing)} not found; install slurm-client, or write executor = "local"')
        self._folder, self._sandbox = folder.resolve(), sandbox
        self._hidden = tuple(path.resolve() for path in hidden)
        self._options, self._gpus = tuple(options), gpus

    @property
    def statement(self) -> str:
        """One line for people: how jobs are kept apart."""
        return f"jobs run by Slurm; sandbox on its nodes: {self._sandbox}"

    def submit(self, spec: Spec) -> Handle:
        """Put it into the queue, unless it is there, or has run."""
        record = record_of(self._folder, spec.handle)
        if record.start() is None and record.exit() is None and self._job(spec.handle) is None:
            record.write_spec(spec._replace(sandbox=self._sandbox, hidden=self._hidden))
            script = record.folder / "job.sh"
            script.write_text(f"#!/bin/sh\nexec {shlex.join(runner_command(record.folder))}\n", encoding="utf-8")
            self._run("sbatch", *self._request(spec, record), str(script))
        return spec.handle

    def _request(self, spec: Spec, record: Record) -> list[str]:
        """Its name is the handle, by which it is found again if this process dies right now. A job that Slurm would start a
        second time by itself would find that it has been started."""
        nodes = ["--nodes", str(spec.nodes), "--ntasks", str(spec.nodes), "--ntasks-per-node", "1"]
        if self._gpus:
            nodes += ["--gpus-per-node", str(self._gpus * spec.processes)]
        files = ["--output", str(record.errors), "--open-mode", "append", "--chdir", str(record.folder)]
        return ["--job-name", spec.handle, "--comment", spec.handle, "--no-requeue", "--export", "NIL", *nodes, *files, *self._options]

    def status(self, handle: Handle) -> Status:
        return self.adopt(handle) or Status("lost", reason="Slurm does not know it, and it never started")

    def adopt(self, handle: Handle) -> Status | None:
        record = record_of(self._folder, handle)
        if (ended := record.exit()) is not None:
            return ended
        job = self._job(handle)
        if job is not None and job.state in WAITING:
            return Status("waiting", reason="" if job.why_it_waits == "None" else f"Slurm: {job.why_it_waits}")
        if job is not None and job.state in RUNNING:
            return Status("running", node=job.nodes)
        if (ended := record.exit()) is not None:  # it ended while we asked
            return ended
        if record.start() is None and (canceled := record.canceled_before_start()) is not None:
            return canceled
        return self._ended(job or self._former_job(handle), was_started=record.start() is not None)

    def _ended(self, job: QueuedJob | None, was_started: bool) -> Status | None:
        """Of what runs no more, and has left no word."""
        if job is None:
            return Status("lost", reason="Slurm does not know it any more") if was_started else None
        if job.state in LOST:
            return Status("lost", reason=f"Slurm: {job.state}", node=job.nodes)
        code = CODES.get(job.state)
        return Status("ended", self._exit_code(job) if code is None else code, f"Slurm: {job.state}", job.nodes)

    def _job(self, handle: Handle) -> QueuedJob | None:
        """The job of this name; of several, the one that is not over. Slurm remembers those that are for some minutes."""
        lines = self._run("squeue", "--noheader", "--states=all", f"--name={handle}", "--format=%i|%T|%N|%r").splitlines()
        jobs = [QueuedJob(*(part.strip() for part in line.split("|", 3))) for line in lines]
        alive = [job for job in jobs if job.state in (*WAITING, *RUNNING)]
        return next(iter(alive or jobs), None)

    def _former_job(self, handle: Handle) -> QueuedJob | None:
        """What accounting says, or the list of completed jobs, where the cluster keeps one of them."""
        if shutil.which("sacct") is None:
            return None
        columns = "--format=JobID,State,NodeList,JobName%200"
        command = ["sacct", "--noheader", "--parsable2", f"--name={handle}", "--starttime=2000-01-01", columns]
        for more in (["--allocations"], ["--completion"]):
            done = self._done(*command, *more)
            lines = [line.split("|", 3) for line in done.stdout.splitlines()] if done.returncode == 0 else []
            for number, state, nodes, name in reversed(lines):
                if name == handle:  # --completion does not ask for the name
                    return QueuedJob(number, state.split()[0], nodes, "")  # "CANCELLED by 1000"
        return None

    def _exit_code(self, job: QueuedJob) -> int:
        """Of a job that failed: of its script, or 128 + the signal that killed it; 1 where Slurm has forgotten it."""
        try:
            told = self._run("scontrol", "show", "job", job.number, "--oneliner")
        except ExecutorUnavailable as error:
            if FORGOTTEN not in str(error):
                raise
            told = ""
        found = re.search(r"\bExitCode=(\d+):(\d+)", told)
        code, signal = (int(found[1]), int(found[2])) if found else (1, 0)
        return 128 + signal if signal else code or 1

    def logs(self, handle: Handle, offset: int = 0, most: int = 1 << 20) -> bytes:
        return record_of(self._folder, handle).logs(offset, most)

    def cancel(self, handle: Handle, grace: float = GRACE_SECONDS) -> None:
        """Slurm kills after its KillWait, which therefore bounds the grace."""
        record_of(self._folder, handle).ask_to_end(min(grace, KILL_WAIT_SECONDS - TELLING_SECONDS))
        self._run("scancel", f"--name={handle}")

    def _run(self, *command: str) -> str:
        done = self._done(*command)
        if done.returncode != 0:
            raise ExecutorUnavailable(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout

    def _done(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ExecutorUnavailable(f"{command[0]} does not answer") from error
