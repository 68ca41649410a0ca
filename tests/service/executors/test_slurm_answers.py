"""What is concluded from the answers of Slurm, given here by scripts; tests/service_real/ has a real one."""
from __future__ import annotations

from pathlib import Path

import pytest

from library.errors import UserError
from service.executors.base import ExecutorUnavailable, Spec
from service.executors.slurm import PROGRAMS, SlurmExecutor
from tests.service.executors.jobs import record, shell, text

FACTS = {"pid": 1, "start": "1", "boot_id": "", "node": "n1"}


class Programs:
    """Scripts in the place of Slurm's programs; what they are called with is noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in PROGRAMS:
            self.answer(name, "")

    def answer(self, name: str, answer: str, code: int = 0) -> None:
        """Of a failure, on the other output."""
        (self.folder / f"{name}.txt").write_text(answer, encoding="utf-8")
        script = f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done > {self.folder}/{name}.called\n'
        script += f"/bin/cat {self.folder}/{name}.txt >&{2 if code else 1}\nexit {code}\n"
        (self.folder / name).write_text(script, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def called(self, name: str) -> list[str]:
        return text(self.folder / f"{name}.called").splitlines()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Programs(tmp_path / "bin")


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return shell(tmp_path, "true", nodes=2, processes=4)


@pytest.mark.parametrize(
    ("state", "started", "concluded"),
    [
        ("PENDING", False, ("waiting", None, "Slurm: Priority")),
        ("RUNNING", True, ("running", None, "")),
        ("COMPLETING", True, ("running", None, "")),
        ("COMPLETED", True, ("ended", 0, "Slurm: COMPLETED")),
        ("FAILED", True, ("ended", 9, "Slurm: FAILED")),
        ("CANCELLED", False, ("ended", 143, "Slurm: CANCELLED")),
        ("TIMEOUT", True, ("ended", 143, "Slurm: TIMEOUT")),
        ("OUT_OF_MEMORY", True, ("ended", 137, "Slurm: OUT_OF_MEMORY")),
        ("NODE_FAIL", True, ("lost", None, "Slurm: NODE_FAIL")),
        ("PREEMPTED", True, ("lost", None, "Slurm: PREEMPTED")),
    ],
)
def test_states(programs: Programs, tmp_path: Path, spec: Spec, state: str, started: bool, concluded: tuple) -> None:
    executor = SlurmExecutor(tmp_path / "runs")
    executor.submit(spec)
    if started:
        record(tmp_path, spec).claim(**FACTS)
    programs.answer("squeue", f"17|{state}|n[1-2]|Priority\n")
    programs.answer("scontrol", "JobId=17 ExitCode=9:0 Comment=x")
    assert executor.status(spec.handle)[:3] == concluded


def test_of_several_jobs_the_one_that_lives_counts(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    programs.answer("squeue", "17|FAILED|n1|None\n18|RUNNING|n2|None\n")
    assert SlurmExecutor(tmp_path / "runs").status(spec.handle)[::3] == ("running", "n2")


def test_a_signal_is_told_as_a_shell_tells_it(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    programs.answer("squeue", "17|FAILED|n1|None\n")
    programs.answer("scontrol", "JobId=17 ExitCode=0:9")
    assert SlurmExecutor(tmp_path / "runs").status(spec.handle).exit_code == 137


def test_what_slurm_has_forgotten_is_lost_if_it_had_started(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    executor = SlurmExecutor(tmp_path / "runs")
    assert executor.adopt(spec.handle) is None
    executor.submit(spec)
    assert executor.adopt(spec.handle) is None
    record(tmp_path, spec).claim(**FACTS)
    assert executor.status(spec.handle)[::2] == ("lost", "Slurm does not know it any more")


def test_what_sbatch_is_told(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    executor = SlurmExecutor(tmp_path / "runs", options=["--partition=gpu"], gpus=1)
    executor.submit(spec)
    told = " ".join(programs.called("sbatch"))
    assert f"--job-name {spec.handle} --comment {spec.handle} --no-requeue --export NIL" in told
    assert "--nodes 2 --ntasks 2 --ntasks-per-node 1 --gpus-per-node 4" in told
    assert told.endswith(f"--partition=gpu {tmp_path}/runs/{spec.handle}/job.sh")
    programs.answer("squeue", "17|PENDING||None\n")
    (tmp_path / "bin" / "sbatch.called").unlink()
    executor.submit(spec)
    assert programs.called("sbatch") == []


def test_canceling_leaves_a_moment_before_slurm_kills(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    executor = SlurmExecutor(tmp_path / "runs")
    executor.submit(spec)
    executor.cancel(spec.handle, grace=60)
    assert record(tmp_path, spec).asked_to_end() == 25
    assert programs.called("scancel") == [f"--name={spec.handle}"]


def test_no_answer_is_no_news(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    programs.answer("squeue", "", code=1)
    with pytest.raises(ExecutorUnavailable, match="squeue: exit code 1"):
        SlurmExecutor(tmp_path / "runs").status(spec.handle)


def test_a_failure_is_told_when_its_exit_code_can_be_asked(programs: Programs, tmp_path: Path, spec: Spec) -> None:
    executor = SlurmExecutor(tmp_path / "runs")
    programs.answer("squeue", "17|FAILED|n1|None\n")
    programs.answer("scontrol", "Unable to contact slurm controller", code=1)
    with pytest.raises(ExecutorUnavailable, match="Unable to contact"):
        executor.status(spec.handle)
    programs.answer("scontrol", "slurm_load_jobs error: Invalid job id specified", code=1)
    assert executor.status(spec.handle)[:3] == ("ended", 1, "Slurm: FAILED")


def test_missing_programs_are_told(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "bin" / "srun").unlink()
    with pytest.raises(UserError, match="srun not found; install slurm-client"):
        SlurmExecutor(tmp_path / "runs")
