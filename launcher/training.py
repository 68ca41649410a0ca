"""Runs `accelerate launch SCRIPT` so that signals reach the training processes and their exit code comes back.

accelerate's launcher by itself turns every failure into 1 and keeps SIGTERM to itself. The training processes therefore write
their ids and exit codes into a file whose path they find in the environment.
"""
from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from launcher.base import venv_python

STATUS_FILE = "TADPOLE_STATUS_FILE"
STOPPED = (130, 143)  # exit codes after SIGINT and SIGTERM
WAIT_FOR = "import psutil, sys; psutil.wait_procs([psutil.Process(p) for p in map(int, sys.argv[1:]) if psutil.pid_exists(p)])"


def accelerate_command(script: Path, options: Sequence[str], accelerate_options: Sequence[str] = ()) -> list[str]:
    """The command that starts a script. Where nobody told accelerate anything, one process gets all the machine's cores."""
    defaults: list[str] = []
    if not accelerate_options and not is_accelerate_configured():
        defaults = ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        if "OMP_NUM_THREADS" not in os.environ:
            defaults += ["--num_cpu_threads_per_process", str(os.cpu_count() or 1)]
    launcher = [str(venv_python()), "-m", "accelerate.commands.launch", "--quiet"]  # quiet: no traceback of its own
    return [*launcher, *defaults, *accelerate_options, str(script), *options]


def is_accelerate_configured() -> bool:
    """Whether `accelerate config` has left its file, which holds what accelerate launch is not told."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return any((home / "accelerate").glob("default_config.*"))


def train(command: list[str], folder: Path | None = None) -> int:
    """Run a command of `accelerate_command` (in `folder`); the exit code of the training."""
    with tempfile.TemporaryDirectory(prefix="tadpole-") as temporary:
        status = Path(temporary, "status")
        passed_on: list[int] = []
        process: subprocess.Popen[bytes] | None = None

        def pass_on(number: int, _frame: FrameType | None) -> None:
            passed_on.append(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
            if process is not None:
                send(passed_on[-1], read_status(status, "pid"), process.pid)

        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGHUP: the terminal was closed; Windows has none
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # under nohup it stays ignored
                signal.signal(number, pass_on)
        # A session of its own: a Ctrl-C in the terminal reaches this process only, which passes it on, once.
        process = subprocess.Popen(
            command, env={**os.environ, STATUS_FILE: str(status)}, cwd=folder, start_new_session=os.name != "nt"
        )
        for number in passed_on:  # while it was being started
            send(number, [], process.pid)
        launcher_code = process.wait()
        pids = read_status(status, "pid")
        if len(read_status(status, "exit")) < len(pids):  # where the launcher died, the training may be saving yet
            subprocess.run([str(venv_python()), "-c", WAIT_FOR, *map(str, pids)])
        return exit_code(launcher_code, len(pids), read_status(status, "exit"), passed_on)


def send(number: int, pids: Sequence[int], launcher_pid: int) -> None:
    """Send a signal to the training processes; while there are none, to the launcher and what it has just started."""
    if os.name == "nt":
        return  # a console's Ctrl-C has reached every process by itself
    with suppress(ProcessLookupError):
        if not pids:
            os.killpg(launcher_pid, number)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def exit_code(launcher_code: int, processes: int, exits: Sequence[int], passed_on: Sequence[int]) -> int:
    """The code of the training: of a process that failed, else of one that was stopped, else what the launcher says."""
    for code in exits:
        if code not in (0, *STOPPED):
            return code
    if processes and len(exits) == processes:
        return max(exits)
    if passed_on:  # it came too early for the training to handle it, or a second one left at once
        return 128 + passed_on[0]
    return 128 - launcher_code if launcher_code < 0 else launcher_code


def read_status(path: Path, what: str) -> list[int]:
    """The numbers after `what` in the file that the training processes write: "pid 123" and "exit 0"."""
    if not path.exists():
        return []
    return [int(line.split()[1]) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(f"{what} ")]
