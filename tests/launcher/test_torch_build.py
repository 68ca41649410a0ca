"""Which build of torch each kind of machine gets, and the command lines."""
from __future__ import annotations

import ssl
import urllib.error
from pathlib import Path

import pytest

from launcher import torch_build
from launcher.base import SetupError
from launcher.torch_build import Gpu, choose_build, find_gpu, index_answers, obtainable, torch_command

MACHINES = [
    # system, machine, GPU, asked for, build, what the reason says
    ("Linux", "x86_64", None, None, "cpu", "no NVIDIA GPU"),
    ("Windows", "AMD64", None, None, "cpu", "no NVIDIA GPU"),
    ("Darwin", "arm64", None, None, "pypi", "Metal"),
    ("Darwin", "arm64", None, "cpu", "pypi", "Metal"),
    ("Linux", "x86_64", Gpu("580.65.06", 8.6), None, "cu130", "580.65.06"),
    ("Windows", "AMD64", Gpu("581.29", 8.9), None, "cu130", "581.29"),
    ("Linux", "aarch64", Gpu("580.95.05", 9.0), None, "cu130", "9.0"),
    ("Linux", "x86_64", Gpu("570.133.20", 8.9), None, "cu126", "570.133.20"),
    ("Windows", "AMD64", Gpu("528.33", 7.5), None, "cu126", "528.33"),
    ("Linux", "x86_64", Gpu("580.65.06", 6.1), None, "cu126", "6.1"),  # CUDA 13 has no code for GPUs before Turing
    ("Linux", "x86_64", Gpu("580.65.06", 12.0), None, "cu130", "12.0"),
    ("Linux", "x86_64", Gpu("570.86.10", 12.0), None, "cpu", "update it to 580"),  # CUDA 12.6 has none for Blackwell
    ("Linux", "x86_64", Gpu("525.60.13", None), None, "cu126", "unknown"),
    ("Linux", "x86_64", Gpu("470.199.02", None), None, "cpu", "update it to 525"),
    ("Windows", "AMD64", Gpu("456.71", 7.5), None, "cpu", "update it to 525"),
    ("Linux", "x86_64", Gpu("470.256.02", 3.5), None, "cpu", "no code for a GPU of compute capability 3.5"),
    ("Linux", "x86_64", Gpu("580.65.06", 8.6), "cpu", "cpu", "--torch"),
    ("Windows", "AMD64", None, "cu126", "cu126", "--torch"),
]


@pytest.mark.parametrize(("system", "machine", "gpu", "asked", "build", "said"), MACHINES)
def test_the_build_fits_the_machine(system: str, machine: str, gpu: Gpu | None, asked: str | None, build: str, said: str) -> None:
    chosen, reason = choose_build(system, machine, gpu, asked)
    assert chosen == build
    assert said in reason


def test_an_old_mac_is_told_that_nothing_fits() -> None:
    with pytest.raises(SetupError, match="Intel"):
        choose_build("Darwin", "x86_64", None)


@pytest.mark.parametrize(
    ("python", "build", "index"),
    [
        (Path(".venv/Scripts/python.exe"), "cu130", ["--index-url", "https://download.pytorch.org/whl/cu130"]),
        (Path(".venv/bin/python"), "cu126", ["--index-url", "https://download.pytorch.org/whl/cu126"]),
        (Path(".venv/bin/python"), "cpu", ["--index-url", "https://download.pytorch.org/whl/cpu"]),
        (Path(".venv/bin/python"), "pypi", []),
    ],
)
def test_the_command_lines(python: Path, build: str, index: list[str]) -> None:
    assert torch_command(python, build) == [str(python), "-m", "pip", "install", "torch==2.13.0", *index]


def test_the_version_is_the_one_that_is_required() -> None:
    required = (Path(__file__).parents[2] / "requirements.txt").read_text(encoding="utf-8")
    assert f"torch=={torch_build.TORCH}\n" in required


def _nvidia_smi(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]) -> None:
    monkeypatch.setattr(torch_build.shutil, "which", lambda name, path=None: "nvidia-smi")
    monkeypatch.setattr(torch_build, "_ask_gpu", lambda program, query: answers.get(query, []))


@pytest.mark.parametrize(
    ("capabilities", "counts"),
    [
        (["8.9", "6.1"], 6.1),
        (["5.0", "12.0"], 12.0),  # no build has code for both: the card that only shows a screen does not decide
        (["3.5", "8.6"], 8.6),
        (["6.1", "8.9", "12.0"], 8.9),
        (["3.5"], 3.5),
    ],
)
def test_of_several_gpus_the_least_capable_counts_that_goes_with_the_best(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[str], counts: float
) -> None:
    _nvidia_smi(monkeypatch, {"driver_version,compute_cap": [["580.65.06", capability] for capability in capabilities]})
    assert find_gpu() == Gpu("580.65.06", counts)


def test_a_driver_that_cannot_tell_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(monkeypatch, {"driver_version": [["470.199.02"]]})
    assert find_gpu() == Gpu("470.199.02", None)


def test_a_driver_that_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(monkeypatch, {})
    assert find_gpu() is None


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (urllib.error.URLError(OSError(-2, "Name or service not known")), False),
        (urllib.error.HTTPError("https://x", 403, "Forbidden", None, None), False),  # type: ignore[arg-type]
        (TimeoutError("timed out"), False),
        (urllib.error.URLError(ssl.SSLError("self-signed certificate")), True),
    ],
)
def test_whether_pytorchs_index_answers(error: Exception, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(torch_build.urllib.request, "urlopen", fail)
    assert index_answers("cpu") is answers


def test_pypi_stands_in_for_an_index_out_of_reach(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch_build, "index_answers", lambda build: False)
    assert obtainable("cu130", "Windows") == "pypi"
    said = capsys.readouterr().out
    assert "cannot be reached" in said
    assert "cannot use the GPU" in said
    assert "python launch.py setup --torch cu130" in said


def test_an_index_within_reach_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "index_answers", lambda build: True)
    assert obtainable("cu130", "Linux") == "cu130"
