"""Jobs on a real Slurm with two nodes. What became of them is asked of Slurm itself, too."""
from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.executors.base import ExecutorUnavailable, Spec
from service.executors.slurm import SlurmExecutor
from tests.service.executors.jobs import is_gone, over, pid_in, record, shell, text, wait_for
from tests.service_real.slurm_cluster import Cluster, cluster_in

ROOT = Path(__file__).resolve().parents[2]
GLOO = """
import os, sys, torch
import torch.distributed as group
group.init_process_group("gloo")
total = torch.ones(1) * (group.get_rank() + 1)
group.all_reduce(total)
print(f"rank {group.get_rank()} of {group.get_world_size()}: {total.item():g}", flush=True)
group.barrier()  # the other one has said so, too: where one fails, Slurm ends the other
group.destroy_process_group()
sys.exit(int(sys.argv[1]) if os.environ["RANK"] == "1" else 0)
"""

SLOW_PROCESS = """
import os, time
if "RANK" in os.environ and os.environ["RANK"] == os.environ["SLOW_RANK"]:
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture
def executor(cluster: Cluster, tmp_path: Path) -> Iterator[SlurmExecutor]:
    """With an empty queue before and after."""
    yield SlurmExecutor(tmp_path / "runs", "never", hidden=[tmp_path])
    cluster.ask("scancel", "--user=root")
    wait_for(lambda: not cluster.ask("squeue", "--noheader"))


def job(tmp_path: Path, script: str, name: str, **more: object) -> Spec:
    return shell(tmp_path, script, job_id=f"{tmp_path.name}-{name}"[-60:].strip("-_"), log=tmp_path / f"{name}.log", **more)


def is_running(executor: SlurmExecutor, handle: str) -> bool:
    return executor.status(handle).state == "running" and executor.logs(handle) != b""


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_runs_and_tells_how_it_ended(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path, code: int) -> None:
    spec = job(tmp_path, f"echo on $SLURMD_NODENAME out; echo err >&2; while [ ! -e go ]; do sleep 0.1; done; exit {code}", "runs")
    handle = executor.submit(spec)
    wait_for(lambda: is_running(executor, handle))
    assert cluster.states(handle) == ["RUNNING"]
    assert (cluster.fact(handle, "JobName"), cluster.fact(handle, "Comment")) == (handle, handle)
    assert executor.status(handle).node in ("n1", "n2")
    (tmp_path / "job" / "go").touch()
    assert over(executor, handle)[:2] == ("ended", code)
    wait_for(lambda: cluster.states(handle) == ["COMPLETED" if code == 0 else "FAILED"])
    assert cluster.fact(handle, "ExitCode") == f"{code}:0"
    assert executor.logs(handle) == b"on out\nerr\n"  # the variables of Slurm are none of its business
    (record(tmp_path, spec).folder / "exit.json").unlink()
    assert executor.status(handle)[:2] == ("ended", code)  # as Slurm tells it
    former = executor._former_job(handle)
    assert former is not None
    assert former.state == cluster.states(handle)[0]
    assert executor._former_job(f"{handle}0") is None


def test_a_job_without_a_node_waits_and_can_be_canceled(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    for name in ("first", "second"):
        handle = executor.submit(job(tmp_path, "echo; sleep 1000", name))
        wait_for(lambda handle=handle: is_running(executor, handle))
    handle = executor.submit(job(tmp_path, "touch ran", "third"))
    wait_for(lambda: executor.status(handle)[::2] == ("waiting", "Slurm: Resources"))
    assert cluster.states(handle) == ["PENDING"]
    executor.cancel(handle)
    assert over(executor, handle)[:3] == ("ended", 143, "canceled before it started")
    assert cluster.states(handle) == ["CANCELLED"]
    assert not (tmp_path / "job" / "ran").exists()


@pytest.mark.parametrize("sandbox", ["never", "always"])
def test_a_canceled_job_can_save(cluster: Cluster, tmp_path: Path, executor: SlurmExecutor, sandbox: str) -> None:
    executor = SlurmExecutor(tmp_path / "runs", sandbox, hidden=[tmp_path])  # type: ignore[arg-type]
    saving = "while [ ! -e go ]; do sleep 0.1; done; echo saved; exit 143"
    handle = executor.submit(job(tmp_path, f"trap '{saving}' TERM; echo ready; while :; do sleep 0.1; done", "saves"))
    wait_for(lambda: is_running(executor, handle))
    executor.cancel(handle)
    (tmp_path / "job" / "go").touch()  # what ends before Slurm has heard of it has failed by itself, for Slurm
    assert over(executor, handle)[:3] == ("ended", 143, "canceled")
    wait_for(lambda: cluster.states(handle) == ["CANCELLED"])
    assert executor.logs(handle).endswith(b"saved\n")


def test_nothing_is_left_of_a_canceled_job(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    stray = "setsid sh -c 'trap \"\" TERM HUP; echo $$ > stray.new; mv stray.new stray; exec sleep 1000' < /dev/null & "
    handle = executor.submit(job(tmp_path, f"trap '' TERM; ({stray}); echo; while :; do sleep 0.1; done", "stray"))
    wait_for(lambda: is_running(executor, handle))
    pid = pid_in(tmp_path / "job" / "stray")
    executor.cancel(handle, grace=0.5)
    assert over(executor, handle)[:3] == ("ended", 137, "canceled")
    assert is_gone(pid)


def test_a_job_is_found_again_by_its_name(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    spec = job(tmp_path, "echo once >> times; while [ ! -e go ]; do sleep 0.1; done", "found")
    assert executor.adopt(spec.handle) is None
    handle = executor.submit(spec)
    other = SlurmExecutor(tmp_path / "runs", "never")  # the service was killed before it had written down what sbatch said
    assert other.submit(spec) == handle
    wait_for(lambda: text(tmp_path / "job" / "times"))
    adopted = other.adopt(handle)
    assert adopted is not None
    assert adopted.state == "running"
    assert len(cluster.states(handle)) == 1
    (tmp_path / "job" / "go").touch()
    assert over(other, handle).exit_code == 0
    other.submit(spec)
    assert len(cluster.states(handle)) == 1
    assert text(tmp_path / "job" / "times") == "once\n"


def test_of_two_jobs_of_one_name_one_runs(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    spec = job(tmp_path, "echo once >> times; sleep 1", "twice")
    handle = executor.submit(spec)
    cluster.ask("sbatch", *executor._request(spec, record(tmp_path, spec)), str(record(tmp_path, spec).folder / "job.sh"))
    assert len(cluster.states(handle)) == 2
    wait_for(lambda: cluster.states(handle) == ["COMPLETED", "COMPLETED"])
    assert over(executor, handle).exit_code == 0
    assert text(tmp_path / "job" / "times") == "once\n"


def test_a_killed_runner_takes_the_job_with_it(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    spec = job(tmp_path, "echo $$ > main; echo; exec sleep 1000", "crash")
    handle = executor.submit(spec)
    wait_for(lambda: is_running(executor, handle))
    os.kill(json.loads(text(record(tmp_path, spec).started))["pid"], signal.SIGKILL)
    assert over(executor, handle)[:3] == ("ended", 137, "Slurm: FAILED")
    assert cluster.states(handle) == ["FAILED"]
    wait_for(lambda: is_gone(pid_in(tmp_path / "job" / "main")))


def test_a_job_whose_node_fails_is_lost(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    handle = executor.submit(job(tmp_path, "echo; sleep 1000", "node"))
    wait_for(lambda: is_running(executor, handle))
    node = executor.status(handle).node
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    status = over(executor, handle)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    assert status.state == "lost"
    wait_for(lambda: cluster.states(handle) == ["NODE_FAIL"])


def test_while_slurm_does_not_answer_nothing_is_concluded(cluster: Cluster, executor: SlurmExecutor, tmp_path: Path) -> None:
    handle = executor.submit(job(tmp_path, "echo; while [ ! -e go ]; do sleep 0.1; done; exit 6", "down"))
    wait_for(lambda: is_running(executor, handle))
    try:
        cluster.stop_controller()
        with pytest.raises(ExecutorUnavailable):
            executor.status(handle)
    finally:
        cluster.start_controller()
    assert executor.status(handle).state == "running"
    (tmp_path / "job" / "go").touch()
    assert over(executor, handle).exit_code == 6


@pytest.mark.parametrize("code", [0, 5])
def test_two_nodes_compute_together(cluster: Cluster, tmp_path: Path, executor: SlurmExecutor, code: int) -> None:
    executor = SlurmExecutor(tmp_path / "runs", "always", hidden=[tmp_path])
    spec = job(tmp_path, "", "gloo", nodes=2, environment={"OMP_NUM_THREADS": "1"})
    (tmp_path / "job" / "gloo.py").write_text(GLOO, encoding="utf-8")
    handle = executor.submit(spec._replace(argv=(sys.executable, str(tmp_path / "job" / "gloo.py"), str(code))))
    status = over(executor, handle)
    assert cluster.fact(handle, "NodeList") == "n[1-2]"
    log = executor.logs(handle).decode()
    assert {"rank 0 of 2: 3", "rank 1 of 2: 3"} <= set(log.splitlines()), log
    assert status.exit_code == min(code, 1), log  # accelerate's launcher says 1 of what has not told its code
    wait_for(lambda: cluster.states(handle) == ["COMPLETED" if code == 0 else "FAILED"])


def test_two_nodes_train(cluster: Cluster, tmp_path: Path, executor: SlurmExecutor) -> None:
    from tests.train.runs import make_workshop

    workshop = make_workshop(tmp_path / "job", max_train_steps=2)
    arguments = (sys.executable, str(ROOT / "train_network.py"), "--config_file", str(workshop.config("lora")))
    spec = job(tmp_path, "", "train", nodes=2, environment={"OMP_NUM_THREADS": "1"})._replace(argv=arguments, cwd=ROOT)
    status = over(executor, executor.submit(spec))
    assert status.exit_code == 0, executor.logs(spec.handle).decode()
    assert (workshop.output("lora") / "toad.safetensors").is_file()
    steps = [[event["step"] for event in workshop.events("lora", rank) if event["event"] == "step"] for rank in (0, 1)]
    assert steps == [[1, 2], [1, 2]]


@pytest.mark.parametrize("slow", ["0", "1", "none"])
def test_a_mistake_in_a_config_is_told_from_two_nodes(cluster: Cluster, tmp_path: Path, executor: SlurmExecutor, slow: str) -> None:
    """Slurm ends the slow one before it can tell the same."""
    (tmp_path / "run.toml").write_text("learning_rat = 1\n", encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(SLOW_PROCESS, encoding="utf-8")
    arguments = (sys.executable, str(ROOT / "train_network.py"), "--config_file", str(tmp_path / "run.toml"))
    spec = job(tmp_path, "", "mistake", nodes=2, environment={"PYTHONPATH": str(tmp_path), "SLOW_RANK": slow})
    handle = executor.submit(spec._replace(argv=arguments, cwd=ROOT))
    status = over(executor, handle)
    assert (status.exit_code, status.reason) == (2, "a mistake in what it was given: the end of its log says which")
    assert b"learning_rate" in executor.logs(handle)
