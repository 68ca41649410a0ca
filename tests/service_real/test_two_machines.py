"""A training on two machines that share nothing but a disk and a network: network namespaces, each with a localhost of its own.

Two nodes of the cluster that test_slurm.py makes are one machine, on which processes meet that would not find each other elsewhere.
"""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.executors.nodes import MAIN_ADDRESS, runner_command
from tests.service.executors.jobs import PATIENCE_SECONDS, record, shell
from tests.service_real.test_slurm import GLOO

ADDRESSES = ("10.213.77.1", "10.213.77.2")


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two, with a cable between them; named `cable` on both."""
    names = [f"tadpole-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if made.returncode != 0:
                pytest.skip(f"this system makes no network namespaces: {made.stderr.strip()}")
        _ip("-netns", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-netns", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _ip("-netns", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _start(machine: str, number: int, folder: Path) -> subprocess.Popen[str]:
    """The runner of a record, as srun starts it there."""
    environment = {**os.environ, "SLURM_NODEID": str(number), MAIN_ADDRESS: f"{ADDRESSES[0]}:4711"}
    command = ["ip", "netns", "exec", machine, *runner_command(folder, "node")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("sandbox", ["never", "always"])
def test_two_machines_compute_together(machines: list[str], tmp_path: Path, sandbox: str) -> None:
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"}
    spec = shell(tmp_path, "", nodes=2, environment=environment, sandbox=sandbox, hidden=(tmp_path,))
    (spec.folder / "gloo.py").write_text(GLOO, encoding="utf-8")
    own = record(tmp_path, spec)
    own.write_spec(spec._replace(argv=(sys.executable, str(spec.folder / "gloo.py"), "0")))
    runners = [_start(machine, number, own.folder) for number, machine in enumerate(machines)]
    try:
        said = [runner.communicate(timeout=PATIENCE_SECONDS)[0] for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
    assert [runner.returncode for runner in runners] == [0, 0], said
    assert ["rank 0 of 2: 3" in said[0], "rank 1 of 2: 3" in said[1]] == [True, True], said
