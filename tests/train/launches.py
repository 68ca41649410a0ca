"""Trainings started as a person starts them: by `python` or by `accelerate launch`, in a session of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from library.train.status import STATUS_FILE
from tests.train.runs import ONE_THREAD, ROOT, Workshop

ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process", "1")
TWO_PROCESSES = (*ACCELERATE, "--multi_gpu", "--num_processes", "2")
PATIENCE_S = 300.0  # for a machine with much else to do


@dataclass
class Launch:
    """A started command; the training process may be its child."""

    process: subprocess.Popen[str]
    log: Path
    status: Path  # the training processes write "pid 123" and "exit 0" here

    def numbers(self, what: str) -> list[int]:
        lines = self.status.read_text(encoding="utf-8").splitlines() if self.status.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(what + " ")]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """AssertionError with what was printed, if it takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def exit_codes(self, count: int = 1) -> list[int]:
        """Of the training processes, once all `count` have ended."""
        self.wait_until(lambda: len(self.numbers("exit")) == count)
        self.process.wait(PATIENCE_S)
        return self.numbers("exit")

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def end(self) -> None:
        """Leaves nothing running, whatever went wrong."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in set(self.numbers("pid")) if len(self.numbers("exit")) < len(self.numbers("pid")) else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def launch(workshop: Workshop, name: str, launcher: tuple[str, ...], script: list[str], config: Path, *flags: str) -> Launch:
    status, log = workshop.folder / f"{name}.status", workshop.folder / f"{name}.log"
    status.unlink(missing_ok=True)
    environment = {**os.environ, **ONE_THREAD, STATUS_FILE: str(status)}
    with log.open("w", encoding="utf-8") as output:
        command = [*launcher, *script, "--config_file", str(config), *flags]
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True, text=True
        )
    return Launch(process, log, status)
