"""GPU slots, and what jobs see of them."""
from __future__ import annotations

from pathlib import Path

import pytest

from service.executors.devices import Devices, devices_of, gpus, visible


def test_slots_are_given_out_in_order() -> None:
    devices = Devices(("0", "1", "2", "3"))
    assert devices.take([]) == "0"
    assert devices.take(["0", "2,1"]) == "3"
    assert devices.take(["1"], count=2) == "0,2"
    assert devices.take(["0", "1,2"], count=2) is None
    assert devices.take(["0", "1", "2", "3"]) is None


def test_the_settings_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.executors.devices.gpus", lambda: ("0", "1", "2"))
    assert devices_of(["GPU-5", "GPU-6"]).slots == ("GPU-5", "GPU-6")
    assert devices_of([]).slots == ("0", "1", "2")
    assert devices_of([], jobs=2).slots == ("0", "1")
    monkeypatch.setattr("service.executors.devices.gpus", lambda: ())
    assert devices_of([]).slots == ("cpu",)
    assert devices_of([], jobs=3).slots == ("cpu", "cpu-2", "cpu-3")


@pytest.mark.parametrize(("device", "shown"), [("0", "0"), ("2,3", "2,3"), ("cpu-2", ""), (None, "")])
def test_a_job_sees_its_own(device: str | None, shown: str) -> None:
    assert visible(device)["CUDA_VISIBLE_DEVICES"] == shown
    assert visible(device)["HIP_VISIBLE_DEVICES"] == shown


def test_gpus_are_those_that_the_tool_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ("0", "1")
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n", encoding="utf-8")
    assert gpus() == ()
    program.unlink()
    assert gpus() == ()
