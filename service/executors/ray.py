"""Runs jobs on a Ray cluster, by Ray Jobs. The folder of the runs has to lie on a disk that all its nodes share."""
from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from library.errors import UserError
from service.executors.base import GRACE_SECONDS, STOPPED_CODE, ExecutorUnavailable, Handle, Sandbox, Spec, Status
from service.executors.nodes import runner_command
from service.executors.records import record_of

MISSING = 'executor = "ray" needs Ray: pip install "ray[default]"'


class RayExecutor:
    """Submits a runner for each job. `address`: of Ray's dashboard, such as http://head:8265. `gpus`: of each process of a job."""

    keeps_queue = True

    def __init__(self, folder: Path, address: str, sandbox: Sandbox = "auto", hidden: Sequence[Path] = (), gpus: int = 0) -> None:
        try:
            import ray.job_submission  # noqa: F401
        except ImportError as error:
            raise UserError(MISSING) from error
        self._folder, self._address, self._sandbox, self._gpus = folder.resolve(), address, sandbox, gpus
        self._hidden = tuple(path.resolve() for path in hidden)

    @property
    def statement(self) -> str:
        """One line for people: how jobs are kept apart."""
        return f"jobs run by Ray; sandbox on its nodes: {self._sandbox}"

    @cached_property
    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self._address)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """What Ray's client answers. What its library for HTTP raises are kinds of OSError, none of ConnectionError."""
        try:
            return question(self._client)
        except (OSError, RuntimeError) as error:
            raise ExecutorUnavailable(f"Ray at {self._address}: {error}") from error

    def submit(self, spec: Spec) -> Handle:
        """Hand it to Ray, unless Ray has had it: a second job of one name is refused."""
        if spec.nodes > 1:
            raise ValueError('several nodes need Slurm: executor = "slurm"')
        record = record_of(self._folder, spec.handle)
        if record.start() is None and record.exit() is None and self._job(spec.handle) is None:
            record.write_spec(spec._replace(sandbox=self._sandbox, hidden=self._hidden))
            wanted = {
                "entrypoint": shlex.join(runner_command(record.folder)),
                "submission_id": spec.handle,
                "entrypoint_num_gpus": self._gpus * spec.processes or None,
            }
            try:
                self._ask(lambda ray: ray.submit_job(**wanted))
            except ExecutorUnavailable:
                if self._job(spec.handle) is None:  # nobody else has submitted it meanwhile
                    raise
        return spec.handle

    def status(self, handle: Handle) -> Status:
        return self.adopt(handle) or Status("lost", reason="Ray does not know it, and it never started")

    def adopt(self, handle: Handle) -> Status | None:
        record = record_of(self._folder, handle)
        if (ended := record.exit()) is not None:
            return ended
        job = self._job(handle)
        state = job.status.value if job else None
        started = record.start()
        if state == "PENDING":
            return Status("waiting")
        if state == "RUNNING":
            return Status("running" if started else "waiting", node=started["node"] if started else None)
        if (ended := record.exit()) is not None:  # it ended while we asked
            return ended
        if started is None and (canceled := record.canceled_before_start()) is not None:
            return canceled
        if job is None:
            return Status("lost", reason="Ray does not know it any more") if started else None
        return _without_word(state, job)

    def _job(self, handle: Handle) -> Any | None:
        try:
            return self._ask(lambda ray: ray.get_job_info(handle))
        except ExecutorUnavailable as error:
            if "does not exist" in str(error):
                return None
            raise

    def logs(self, handle: Handle, offset: int = 0, most: int = 1 << 20) -> bytes:
        return record_of(self._folder, handle).logs(offset, most)

    def cancel(self, handle: Handle, grace: float = GRACE_SECONDS) -> None:
        """The runner ends what runs: Ray itself would give it 3 seconds only."""
        record = record_of(self._folder, handle)
        record.ask_to_end(grace)
        if record.start() is None and self._job(handle) is not None:
            self._ask(lambda ray: ray.stop_job(handle))


def _without_word(state: str | None, job: Any) -> Status:
    """Of what has ended, and whose runner has left no word."""
    if state == "FAILED" and job.driver_exit_code is None:
        return Status("lost", reason=f"Ray: {job.message}")
    code = {"SUCCEEDED": 0, "STOPPED": STOPPED_CODE}.get(state or "", job.driver_exit_code)
    return Status("ended", code if code >= 0 else 128 - code, f"Ray: {state}")
