"""The environment in which trained models draw: made once, uses what ours has, and missed by nobody who only trains."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher import cog
from launcher.base import SetupError, python_of
from service.background import cog_python

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip was asked for; the environment is real, and ours is the one that runs the tests."""
    asked: list[list[str]] = []
    monkeypatch.setattr(cog, "COG", tmp_path / "cog")
    monkeypatch.setattr(cog, "MARK", tmp_path / "cog" / "mark")
    monkeypatch.setattr(cog, "REQUIREMENTS", tmp_path / "requirements-cog.txt")
    monkeypatch.setattr(cog, "venv_python", lambda: Path(sys.executable))
    monkeypatch.setattr(cog, "run_pip", lambda arguments, python: asked.append([*arguments, str(python)]))
    cog.REQUIREMENTS.write_text("cog==0.16.12\n", encoding="utf-8")
    return asked


def test_it_is_made_once_and_has_what_ours_has(installed: list[list[str]], tmp_path: Path) -> None:
    cog.set_up_cog()
    cog.set_up_cog()
    python = python_of(tmp_path / "cog")
    assert installed == [["install", "-r", str(tmp_path / "requirements-cog.txt"), str(python)]]
    find = "import importlib.util, sys; print(importlib.util.find_spec('torch') is not None, sys.prefix)"
    assert subprocess.run([python, "-c", find], capture_output=True, text=True).stdout.split() == ["True", str(tmp_path / "cog")]
    assert cog_python(tmp_path) == python  # the service looks for it there


def test_it_is_made_anew_when_its_requirements_change(installed: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    monkeypatch.setattr(cog, "install", lambda: times.append("again"))
    cog.COG.mkdir()
    cog.MARK.write_text("cog==0.9\n", encoding="utf-8")
    cog.set_up_cog()
    cog.set_up_cog()
    assert times == ["again"] and cog.MARK.read_text(encoding="utf-8") == "cog==0.16.12\n"


def test_a_failure_is_told_and_tried_again(
    installed: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SetupError("check the network")

    monkeypatch.setattr(cog, "install", fail)
    cog.set_up_cog()
    assert "not asked for pictures: check the network" in capsys.readouterr().out
    assert not cog.MARK.exists()


def test_a_service_without_it_asks_its_own_python(tmp_path: Path) -> None:
    assert cog_python(tmp_path) == Path(sys.executable)


def test_it_holds_what_packages_ask_for() -> None:
    """In the versions that a package lists, and the rest is in requirements.txt."""
    def names(file: str) -> set[str]:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        return {line.partition(";")[0].strip() for line in lines if line and not line.startswith("#")}

    ours = {line.partition(mark)[0] for mark in (">=", "==") for line in names("requirements.txt")}
    wanted = names("service/packages/templates/shared/requirements.txt")
    assert names("requirements-cog.txt") <= wanted
    assert {line.partition("==")[0] for line in wanted - names("requirements-cog.txt")} <= ours
