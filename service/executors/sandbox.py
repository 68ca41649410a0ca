"""Runs a job in bubblewrap: it sees the system, Python and this project read-only, its folder, and no network. Standard library only."""
from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from service.executors.base import Sandbox, Spec

ROOT = Path(__file__).resolve().parents[2]
NAME = "bwrap"
APART = (
    *("--die-with-parent", "--unshare-user-try", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--cap-drop", "ALL"),
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/sys")
SETTINGS = (  # of /etc: what programs need, nothing that is secret
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "passwd", "group", "nsswitch.conf", "hosts", "resolv.conf", "localtime"),
    *("ssl/certs", "ca-certificates", "fonts", "nvidia", "OpenCL", "vulkan"),
)
# Queues that end a job send SIGTERM to every process of it. bubblewrap would end at once, and the job with it before it has saved:
# the signal is blocked for it (child.py), and not for the job any more, which gets what has come meanwhile.
LISTENING = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]); os.execvp(sys.argv[1], sys.argv[1:])"
GPUS = ("nvidia*", "dri", "kfd", "dxg")  # in /dev; the last is that of WSL


class SandboxMissing(Exception):
    """The job must be in a sandbox, and there is none."""


@cache
def problem() -> str | None:
    """Why jobs cannot run in bubblewrap on this machine; None: they can."""
    program = shutil.which(NAME)
    if program is None:
        return "bubblewrap is not installed (apt-get install bubblewrap)" if sys.platform.startswith("linux") else "only Linux has it"
    mounts = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    command = [program, *APART, "--unshare-net", *mounts, sys.executable, "-ISc", ""]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return None if done.returncode == 0 else f"bubblewrap does not work here ({done.stderr.strip() or f'exit code {done.returncode}'})"


def statement(wanted: Sandbox) -> str:
    """One line for people: how jobs are kept apart on this machine."""
    if wanted == "never":
        return "jobs run without a sandbox, as the settings say: they can read what the service can read"
    why_not = problem()
    if why_not is None:
        return "jobs run in bubblewrap: the system is read-only, only their own folder can be written, no network"
    return f"jobs run without a sandbox and can read what the service can read: {why_not}"


def is_used(wanted: Sandbox) -> bool:
    """Whether jobs are to run in it; SandboxMissing where they must and cannot."""
    if wanted == "always" and problem() is not None:
        raise SandboxMissing(f"the sandbox is required: {problem()}")
    return wanted != "never" and problem() is None


def wrapped(argv: Sequence[str], spec: Spec, temporary: Path) -> list[str]:
    """The command that runs `argv` in the sandbox. Hidden folders appear empty, but for what the job may read and write in them."""
    network = () if spec.network or spec.nodes > 1 else ("--unshare-net",)
    command = [NAME, *APART, *network, "--proc", "/proc", "--dev", "/dev", "--bind", str(temporary), "/tmp"]
    for path in [*SYSTEM, *(f"/etc/{name}" for name in SETTINGS)]:
        command += ["--ro-bind-try", path, path]
    for device in (path for pattern in GPUS for path in sorted(Path("/dev").glob(pattern))):
        command += ["--dev-bind-try", str(device), str(device)]
    for path in _programs(argv[0]):
        command += ["--ro-bind", path, path]
    read_only = ["/"]  # what bubblewrap puts there itself is memory, which a job could fill
    for path in map(str, spec.hidden):
        command += ["--tmpfs", path]
        read_only.append(path)
    for path in map(str, spec.readable):
        command += ["--ro-bind", path, path]
    command += ["--bind", str(spec.folder), str(spec.folder)]
    for path in read_only:
        command += ["--remount-ro", path]
    return [*command, "--chdir", str(spec.cwd), "--", sys.executable, "-ISc", LISTENING, *argv]


def _programs(program: str) -> list[str]:
    """This project, and where the Python lives that runs it: its environment and what that is made from."""
    folders = [ROOT, Path(sys.base_prefix)]
    for python in (Path(sys.executable), Path(program)):
        if python.is_absolute():
            folders += [python.parents[1], python.resolve().parents[1]]
    paths = dict.fromkeys(str(path) for path in folders)
    return [path for path in paths if path != "/" and path not in SYSTEM]
