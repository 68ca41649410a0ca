"""The trainer itself as a job of this machine, in the sandbox: alone and by two processes, to its end and canceled."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.service.executors.jobs import local, over, running, shell, wait_for
from tests.train.runs import Workshop, make_workshop

ROOT = Path(__file__).resolve().parents[2]


def training(folder: Path, workshop: Workshop, processes: int, **options: object):  # type: ignore[no-untyped-def]
    argv = (sys.executable, str(ROOT / "train_network.py"), "--config_file", str(workshop.config("lora", **options)))
    spec = shell(folder, "", processes=processes, environment={"OMP_NUM_THREADS": "1"})
    return spec._replace(argv=argv, cwd=ROOT)


@pytest.mark.parametrize("processes", [1, 2])
def test_to_its_end(tmp_path: Path, processes: int) -> None:
    executor, workshop = local(tmp_path, "always"), make_workshop(tmp_path / "job", max_train_steps=2)
    handle = executor.submit(training(tmp_path, workshop, processes))
    status = over(executor, handle)
    assert status[:3] == ("ended", 0, ""), executor.logs(handle).decode()
    assert (workshop.output("lora") / "toad.safetensors").stat().st_mode & 0o777 == 0o600
    events = [event["event"] for event in workshop.events("lora", processes - 1)]
    assert events.count("step") == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_canceled_it_saves(tmp_path: Path, processes: int) -> None:
    executor, workshop = local(tmp_path, "always"), make_workshop(tmp_path / "job", max_train_steps=100_000)
    with running(executor, training(tmp_path, workshop, processes)) as handle:
        wait_for(lambda: any(event["event"] == "step" for event in workshop.events("lora")) or executor.status(handle).exit_code)
        executor.cancel(handle, grace=500)
        status = over(executor, handle)
        assert status[:3] == ("ended", 143, "canceled"), executor.logs(handle).decode()
        assert list(workshop.output("lora").glob("toad-*-state"))


def test_a_mistake_is_told(tmp_path: Path) -> None:
    executor, workshop = local(tmp_path, "always"), make_workshop(tmp_path / "job", max_train_steps=1)
    status = over(executor, executor.submit(training(tmp_path, workshop, 2, learning_rate="fast")))
    assert (status.exit_code, status.reason) == (2, "a mistake in what it was given: the end of its log says which")
