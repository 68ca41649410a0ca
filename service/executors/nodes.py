"""The command of a job: as it is, by accelerate's launcher for several processes, by srun on several nodes. Standard library only."""
from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from service.executors.base import Spec

RUNNER = Path(__file__).with_name("runner.py")
MAIN_ADDRESS = "TADPOLE_MAIN_ADDRESS"  # host:port where the processes of all nodes meet


def runner_command(record: Path, *more: str) -> list[str]:
    """Starts the runner of a record, with nothing of the environment's packages."""
    return [sys.executable, "-I", "-S", str(RUNNER), str(record), *more]


def on_this_node(spec: Spec) -> list[str]:
    """The command on one node: what was asked for, or accelerate's launcher with as many processes, told of the other nodes."""
    if spec.processes * spec.nodes == 1:
        return list(spec.argv)
    python, *script = spec.argv
    options = ["--num_processes", str(spec.processes * spec.nodes), "--num_machines", str(spec.nodes), "--multi_gpu"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the script's own options decide over both
    if spec.nodes > 1:
        host, _, port = os.environ[MAIN_ADDRESS].rpartition(":")
        options += ["--machine_rank", os.environ["SLURM_NODEID"], "--main_process_ip", host, "--main_process_port", port]
    else:
        options += ["--main_process_port", "0"]  # a free one: another job may be starting at this moment
    return [python, "-m", "accelerate.commands.launch", "--quiet", *options, *script]


def on_all_nodes(spec: Spec, record: Path) -> tuple[list[str], dict[str, str]]:
    """The command that starts the runner once on each node that Slurm has given us, and its environment."""
    nodes = str(spec.nodes)
    command = ["srun", "--nodes", nodes, "--ntasks", nodes, "--ntasks-per-node", "1", "--kill-on-bad-exit=1", "--export=ALL"]
    environment = {**os.environ, MAIN_ADDRESS: f"{address_of_this_node()}:{free_port()}"}
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # srun does not take it over from sbatch by itself
        environment["SRUN_CPUS_PER_TASK"] = cores
    return [*command, *runner_command(record, "node")], environment


def address_of_this_node() -> str:
    """Under what other nodes find the first one, on which this runs: as Slurm's controller reaches it."""
    name = os.environ["SLURMD_NODENAME"]
    told = subprocess.run(["scontrol", "show", "node", name, "--oneliner"], capture_output=True, text=True).stdout
    found = re.search(r"\bNodeAddr=(\S+)", told)
    return found[1] if found else name


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]
