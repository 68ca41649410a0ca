"""The job as the runner holds it: started within its limits, watched, and ended with all that it has started. Standard library only."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from service.executors.base import Limits
from service.executors.output import Copier
from service.executors.processes import (
    KILL,
    descendants,
    die_with_parent,
    name_of,
    parent_of,
    send,
    threads_of_this_user,
    variables_of,
    wait_until,
)
from service.executors.sandbox import NAME as SANDBOX

SPARED = (SANDBOX, "srun")  # both would end the job without its grace; what they run hears of it by itself
LAUNCHED = "LOCAL_RANK"  # a variable of each process that a launcher has started
NICENESS = 10
DRAIN_SECONDS = 5.0  # what the job has printed comes through the pipe when nobody holds it any more
ATTEMPTS_TO_KILL = 50  # something may start processes as fast as we find them


class Child:
    """One job's process and its offspring. Where the runner dies, it dies, too (on Linux)."""

    def __init__(
        self, argv: Sequence[str], cwd: Path, environment: dict[str, str], log: int, limits: Limits | None, gives_way: bool = False
    ) -> None:
        steps = [die_with_parent()]
        steps += [give_way] if gives_way else []
        steps += [limiter(limits)] if limits else []
        steps += [put_off_termination] if argv[0] == SANDBOX else []
        priority = 0
        if sys.platform == "win32" and gives_way:
            priority = subprocess.BELOW_NORMAL_PRIORITY_CLASS
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=os.name != "nt",
            creationflags=priority,
            preexec_fn=(lambda: [step() for step in steps]) if os.name != "nt" else None,
        )
        assert self._process.stdout is not None
        most = limits.log_bytes if limits else Limits().log_bytes
        self._copier = Copier(self._process.stdout, log, most)
        self._copier.start()
        self._code: int | None = None

    def has_ended(self) -> bool:
        """Whether the process itself has; what it left behind may live."""
        if os.name == "nt":
            self._code = self._process.poll()
        else:
            self._reap()
        return self._code is not None

    def _reap(self) -> None:
        """Orphans of the job become children of the runner, so any child may be the next to have ended."""
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._process.pid:
                    self._code = self._process.returncode = os.waitstatus_to_exitcode(found[1])
        except ChildProcessError:
            return

    def wait(self, seconds: float) -> None:
        """Until the job has likely ended, at most so long."""
        if self._copier.closed.wait(seconds):
            time.sleep(0.05)  # between the end of its output and its own

    def exit_code(self) -> int:
        """As a shell gives it: 128 + n where signal n killed it."""
        assert self._code is not None
        return self._code if self._code >= 0 else 128 - self._code

    def terminate(self) -> bool:
        """Ask all of it to end; whether anybody hears it: bubblewrap may not have started the job yet. Windows knows no asking."""
        if os.name == "nt":
            self.kill()
            return True
        found = descendants(os.getpid())
        launchers = launchers_among(found)
        asked = [pid for pid in found if pid not in launchers and name_of(pid) not in SPARED]
        for pid in asked:
            send(pid, signal.SIGTERM)
        return bool(asked)

    def kill(self) -> None:
        if os.name == "nt":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self._process.pid)], capture_output=True)
            return
        for pid in descendants(os.getpid()):
            send(pid, KILL)

    def sweep(self, seconds: float) -> None:
        """End what the job has left behind, within so many seconds by asking, then by force; its output is in the log then."""
        if os.name != "nt" and not self._nothing_is_left():
            self.terminate()
            wait_until(self._nothing_is_left, max(0.0, seconds))
            for _ in range(ATTEMPTS_TO_KILL):
                if self._nothing_is_left():
                    break
                self.kill()
                wait_until(self._nothing_is_left, 0.1)
        self._copier.finish(DRAIN_SECONDS)

    def _nothing_is_left(self) -> bool:
        """Two looks in a row have to find nothing: whose parent ends in the middle of one may be passed by, where ids begin anew."""
        self._reap()
        return not any(descendants(os.getpid()) for _ in range(2))


def launchers_among(pids: Sequence[int]) -> set[int]:
    """Accelerate's launcher, once it has started what trains: that hears of the end by itself. The launcher would say so once more,
    perhaps so late that it is taken for a second wish, which is to leave at once; and would kill what saves for 30 seconds.
    """
    launched = {pid for pid in pids if LAUNCHED in variables_of(pid)}
    return {parent for pid in launched if (parent := parent_of(pid)) is not None} - launched


def limiter(limits: Limits) -> Callable[[], None]:
    """What the child calls before it becomes the program. All is worked out here: between fork and exec little can be done."""
    if os.name == "nt":
        return lambda: None
    import resource

    wanted = {
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes + threads_of_this_user(),
        resource.RLIMIT_CORE: 0,
    }
    values = []
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        values.append((kind, (value, value)))

    def limit() -> None:
        for kind, value in values:
            resource.setrlimit(kind, value)

    return limit


def give_way() -> None:
    """Linux weighs sessions first (autogroup), where it is not told to weigh control groups, and processes within them after that."""
    os.nice(NICENESS)
    with suppress(OSError):
        descriptor = os.open("/proc/self/autogroup", os.O_WRONLY)
        os.write(descriptor, str(NICENESS).encode())
        os.close(descriptor)


def put_off_termination() -> None:
    """For bubblewrap for ever; for what it starts, until that is there (sandbox.py)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
