"""A cluster of Slurm on this machine: munged, slurmctld and two slurmd, each a node, in a temporary folder. Needs to be root."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun", "sacct")
PACKAGES = "apt-get install munge slurmctld slurmd slurm-client"
NODES = ("n1", "n2")
PATIENCE_SECONDS = 120.0
KILL_WAIT_SECONDS = 30
CONFIG = """
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
KillWait={kill_wait}
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Two nodes of one core each. What `squeue` and `scontrol` say is asked here directly, not through our code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
        assert not missing, f"{', '.join(missing)} not found: {PACKAGES}"
        assert os.getuid() == 0, "slurmd has to be root"
        for name in ("state", "munge", *(f"spool_{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "completed.txt").touch()
        self._write_config()
        self._start_munge()
        self.start_controller()
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        wait_for(lambda: self.ask("sinfo", "--Node", "--noheader", "--format=%N %t").split() == ["n1", "idle", "n2", "idle"], "nodes that are idle")

    def _write_config(self) -> None:
        controller, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname()
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"
            for node, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIG.format(host=host, controller=controller, folder=self.folder, kill_wait=KILL_WAIT_SECONDS, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        options = [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={folder / 'socket'}", *options)
        wait_for((folder / "socket").exists, "munged")

    def start_controller(self) -> None:
        self._controller = self._start("slurmctld", "-D")
        wait_for(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld")

    def stop_controller(self) -> None:
        """As for an upgrade: it writes down what it knows."""
        self._controller.terminate()
        self._controller.wait(60)

    def _start(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        command = [str(shutil.which(program, path=_path())), *options]
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))
        return self._daemons[-1]

    def stop(self) -> None:
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["scancel", "--user=root"], timeout=30)
            wait_for(lambda: not self.ask("squeue", "--noheader"), "an empty queue")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        os.environ.pop("SLURM_CONF", None)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def states(self, name: str) -> list[str]:
        """What squeue says of the jobs of this name, those included that are over."""
        return self.ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%T").split()

    def fact(self, name: str, key: str) -> str:
        """What `scontrol show job` says of the job of this name."""
        number = self.ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i").split()[0]
        words = self.ask("scontrol", "show", "job", number, "--oneliner").split()
        return next(word.split("=", 1)[1] for word in words if word.startswith(f"{key}="))


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for server in sockets:
        server.bind(("127.0.0.1", 0))
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def wait_for(holds, what: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)


def _path() -> str:
    """Daemons lie in folders that are not in everybody's PATH."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
