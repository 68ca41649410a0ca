"""What launch.py understands, on which Pythons, and what doctor finds."""
from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from launcher import commands, doctor
from launcher.torch_build import Gpu

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was set up and what was run."""
    calls: dict[str, Any] = {}
    monkeypatch.setattr(commands, "set_up", lambda asked=None, dev=False: calls.update(asked=asked, dev=dev))
    monkeypatch.setattr(commands, "train", lambda command, folder=None: calls.update(command=command, folder=folder) or 0)
    monkeypatch.setattr(commands, "test", lambda options: calls.update(pytest=options) or 0)
    return calls


def test_the_demo_is_the_real_script_on_the_example(started: dict[str, Any]) -> None:
    assert commands.main(["demo", "--torch", "cpu"], "") == 0
    assert started["asked"] == "cpu"
    assert started["command"][-3:] == [str(ROOT / "train_network.py"), "--config_file", "examples/frog_lora.toml"]
    assert started["folder"] == ROOT


def test_tests_take_pytests_options(started: dict[str, Any]) -> None:
    assert commands.main(["test", "-k", "buckets", "--torch", "cpu"], "") == 0
    assert (started["dev"], started["asked"], started["pytest"]) == (True, "cpu", ["-k", "buckets"])


def test_a_script_keeps_its_options_and_the_working_folder(started: dict[str, Any]) -> None:
    assert commands.main(["--num_processes", "2", "train_network.py", "--config_file", "mine.toml", "--torch"], "") == 0
    command = started["command"]
    place = command.index(str(ROOT / "train_network.py"))
    assert command[place + 1 :] == ["--config_file", "mine.toml", "--torch"]
    assert command[place - 2 : place] == ["--num_processes", "2"]
    assert started["folder"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["dmeo"], "'dmeo' is none of demo, test, serve, doctor, setup"), (["train_netwrok.py"], "there is no script train_netwrok.py")],
)
def test_what_is_not_understood(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(arguments, "") == 2
    assert said in capsys.readouterr().out


def test_serve_starts_the_service_where_the_user_is(tmp_path: Path) -> None:
    """Its data goes there; its exit code and its words come through."""
    (tmp_path / "tadpole-data").mkdir()
    (tmp_path / "tadpole-data/service.toml").write_text("prot = 1", encoding="utf-8")
    start = (
        "import sys; from launcher import commands; commands.set_up = lambda service: None; commands.set_up_cog = lambda: None; "
        "commands.venv_python = lambda: sys.executable; sys.exit(commands.main(['serve', '--port', '0'], ''))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", start], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip() == 'error: tadpole-data/service.toml, prot: unknown setting; did you mean "port"?'


def test_an_unknown_option_is_a_mistake(started: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        commands.main(["setup", "--develop"], "")
    assert exit_info.value.code == 2


def test_without_a_word_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([], "the usage") == 2
    assert commands.main(["--help"], "the usage") == 0
    assert capsys.readouterr().out == "the usage\n" * 2


def test_any_old_python_can_read_launch_py() -> None:
    ast.parse((ROOT / "launch.py").read_text(encoding="utf-8"), feature_version=(3, 4))


def test_an_old_python_is_told_which_one_to_take() -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 8, 18); sys.argv[1:] = ['demo']; runpy.run_path('launch.py')"
    result = subprocess.run([sys.executable, "-c", pretend], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "Python 3.8 is too old" in result.stderr
    assert "python3.11 launch.py demo" in result.stderr


def test_nothing_but_the_standard_library_is_imported() -> None:
    for path in [ROOT / "launch.py", *sorted((ROOT / "launcher").glob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        strange = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"launcher"}
        assert not strange, path


FACTS = {
    "versions": {"torch": "2.13.0"}, "optional": {"bitsandbytes": "there", "xformers": "absent"}, "cuda": "13.0", "metal": False,
    "gpus": ["NVIDIA GeForce RTX 4090, 24 GiB, sm_89"], "bf16": True, "memory_gib": 64, "python": "3.11.7",
}  # fmt: skip


def test_doctor_finds_nothing_wrong_where_nothing_is() -> None:
    assert doctor.find_problems(FACTS, Gpu("580.65.06", 8.9)) == []
    assert doctor.find_problems({**FACTS, "gpus": []}, None) == []


def test_doctor_sees_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: "Windows")
    (problem,) = doctor.find_problems({**FACTS, "gpus": []}, Gpu("581.29", 8.9))
    assert problem.endswith("python launch.py setup --torch cu130")
    (problem,) = doctor.find_problems({**FACTS, "gpus": []}, Gpu("456.71", 7.5))
    assert "update it to 525" in problem


@pytest.mark.parametrize(("major", "has_bf16"), [(7, False), (8, True)])
def test_doctor_does_not_count_bf16_that_is_emulated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], major: int, has_bf16: bool
) -> None:
    gpu = SimpleNamespace(name="GPU", total_memory=2**34, major=major, minor=5)
    answers = {"is_available": True, "device_count": 1, "current_device": 0, "get_device_properties": gpu, "_check_bf16_tensor_supported": True}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(sys, "argv", ["probe", "torch", "numpy"])
    exec(doctor.PROBE, {})
    assert json.loads(capsys.readouterr().out)["bf16"] is has_bf16


def test_doctor_sees_a_broken_library() -> None:
    (problem,) = doctor.find_problems({**FACTS, "optional": {"lion_pytorch": "broken: no such symbol"}}, None)
    assert "lion_pytorch is broken: no such symbol" in problem
    assert "lion-pytorch" in problem


def test_doctor_says_that_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "read_mark", dict)
    monkeypatch.setattr(doctor, "find_gpu", lambda: None)
    assert doctor.doctor() == 1
    printed = capsys.readouterr().out
    for row in ("system", "python", "disk", "tadpole", "NVIDIA driver"):
        assert f"\n{row}" in f"\n{printed}"
    assert "PROBLEM        the environment is not set up: python launch.py setup" in printed
