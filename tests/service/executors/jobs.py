"""Jobs of a few lines of shell, and waiting for what becomes of them."""
from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.executors.base import Executor, Sandbox, Spec, Status
from service.executors.local import LocalExecutor
from service.executors.processes import start_of
from service.executors.records import Record

PATIENCE_SECONDS = 540.0  # a machine may be slow and busy; nothing waits that long where all is well


def shell(folder: Path, script: str, **more: Any) -> Spec:
    """A job that runs a script of the shell in its folder. Of a job that is lost, all of its name is killed: no other test has it."""
    job = folder / "job"
    job.mkdir(parents=True, exist_ok=True)
    values = {"job_id": f"j{zlib.crc32(bytes(folder)):08x}", "stage": "training", "environment": {}, "cwd": job, "log": folder / "log.txt", "folder": job, **more}
    return Spec(argv=("/bin/sh", "-c", script), **values)


def local(folder: Path, sandbox: Sandbox = "never") -> LocalExecutor:
    return LocalExecutor(folder / "runs", sandbox, hidden=(folder,))


def record(folder: Path, spec: Spec) -> Record:
    return Record(folder / "runs" / spec.handle)


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (answer := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return answer


def over(executor: Executor, handle: str) -> Status:
    """What has become of a job when it is over."""
    def ended() -> Status | None:
        status = executor.status(handle)
        return status if status.state in ("ended", "lost") else None

    return wait_for(ended)


def text(path: Path) -> str:
    """What is in a file; nothing where there is none yet."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def pid_in(path: Path) -> int:
    """The process id that a job writes into a file."""
    return int(wait_for(lambda: text(path) if text(path).endswith("\n") else ""))


def is_gone(pid: int) -> bool:
    """Or waits to be reaped."""
    return start_of(pid) is None


@contextmanager
def running(executor: LocalExecutor, spec: Spec) -> Iterator[str]:
    """A job that is running; afterwards it is no more, whatever the test has come to."""
    handle = executor.submit(spec)
    try:
        wait_for(lambda: executor.status(handle).state == "running")
        yield handle
    finally:
        executor.cancel(handle, grace=0)
        wait_for(lambda: executor.status(handle).state in ("ended", "lost"))
