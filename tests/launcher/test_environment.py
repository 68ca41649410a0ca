"""Setting up: once, again after a change, and what a person is told when it fails."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import environment
from launcher.base import SetupError
from launcher.environment import check_python, check_space, explain_failure, make_venv, run_pip, set_up

# What pip and venv really print.
NO_VENV = """The virtual environment was not created successfully because ensurepip is not
available.  On Debian/Ubuntu systems, you need to install the python3-venv
package using the following command.

    apt install python3.11-venv

You may need to use sudo with that command.  After installing the python3-venv
package, recreate your virtual environment.

Failing command: /home/me/tadpole/.venv/bin/python3"""
NO_NETWORK = """WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken \
by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f91>: Failed to establish a new connection: \
[Errno -2] Name or service not known')': /simple/accelerate/
ERROR: Could not find a version that satisfies the requirement accelerate (from versions: none)
ERROR: No matching distribution found for accelerate"""
NO_PROXY = """ERROR: Could not find a version that satisfies the requirement accelerate (from versions: none)
ERROR: No matching distribution found for accelerate"""
NO_DISK = """Installing collected packages: torch
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""
NO_TRUST = """WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: \
CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1006)'))'
ERROR: Could not find a version that satisfies the requirement accelerate (from versions: none)"""
NO_BUILD = """ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.14.0, 2.14.1)
ERROR: No matching distribution found for torch==2.13.0"""
NO_RIGHTS = r"""ERROR: Could not install packages due to an OSError: [WinError 5] Access is denied: 'C:\\t\\c10.dll'
Check the permissions."""
NO_LENGTH = r"""ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory: 'C:\\a\\very\\long.h'
HINT: This error might have occurred since this system does not have Windows Long Path support enabled."""


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        (NO_VENV, "no venv module: on Debian and Ubuntu, sudo apt install python3."),
        ("/usr/bin/python3: No module named venv", "no venv module"),
        ("/p/.venv/bin/python: No module named pip", "delete"),
        (NO_NETWORK, "check the network"),
        (NO_PROXY, "HTTPS_PROXY"),
        (NO_DISK, "a disk is full: free some space"),
        (NO_TRUST, "PIP_CERT"),
        (NO_BUILD, "no build for this machine"),
        (NO_RIGHTS, "close programs that use"),
        (NO_LENGTH, "too long for Windows"),
        ("something nobody foresaw", "the installation failed: something nobody foresaw"),
        ("", "no message"),
    ],
)
def test_each_failure_names_its_remedy(output: str, remedy: str) -> None:
    assert remedy in explain_failure(output)


@pytest.mark.parametrize("version", [(3, 9), (3, 14), (4, 0)])
def test_a_wrong_python_is_told_which_one_to_take(version: tuple[int, int]) -> None:
    with pytest.raises(SetupError, match=r"is not supported.*install Python 3\.11"):
        check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 11, 7), (3, 13)])
def test_a_right_python_passes(version: tuple[int, ...]) -> None:
    check_python(version)


def test_too_little_space_is_told_before_anything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**30))
    check_space("cpu")
    with pytest.raises(SetupError, match=r"5\.0 GiB are free.*12 GiB are needed"):
        check_space("cu130")


def test_a_failed_venv_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.subprocess, "run", lambda *_args, **_options: SimpleNamespace(returncode=1, stdout=NO_VENV))
    with pytest.raises(SetupError, match="apt install"):
        make_venv()
    assert not environment.VENV.exists()


def test_a_failed_pip_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(stdout=NO_DISK.splitlines(keepends=True), wait=lambda: 1)
    monkeypatch.setattr(environment.subprocess, "Popen", lambda *_args, **_options: failed)
    with pytest.raises(SetupError, match="disk is full"):
        run_pip(["install", "torch"])


# --- the set-up as a whole, with pip and venv recorded instead of run ---


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of requirement files, on a Linux machine without a GPU."""
    (tmp_path / "requirements.txt").write_text("torch\n", encoding="utf-8")
    (tmp_path / "requirements-service.txt").write_text("fastapi\n", encoding="utf-8")
    (tmp_path / "requirements-dev.txt").write_text("pytest\n", encoding="utf-8")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "MARK", venv / "mark.json")
    monkeypatch.setattr(environment, "venv_python", lambda: venv / "python")
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(environment, "find_gpu", lambda: None)
    monkeypatch.setattr(environment, "obtainable", lambda build, system: build)
    monkeypatch.setattr(environment, "check_space", lambda build: None)
    return tmp_path


@pytest.fixture
def done(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done: "venv", or the words behind pip."""
    actions: list[str] = []

    def make() -> None:
        environment.VENV.mkdir()
        environment.venv_python().touch()
        actions.append("venv")

    monkeypatch.setattr(environment, "make_venv", make)
    monkeypatch.setattr(environment, "run_pip", lambda arguments: actions.append(" ".join(arguments).replace(f"{place}/", "")))
    return actions


TORCH_CPU = "install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH_CUDA = "install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
UNINSTALL = "uninstall --yes torch"  # pip takes any build of the right version for the one that is wanted
PACKAGES = "install -r requirements.txt"
SERVICE_PACKAGES = "install -r requirements.txt -r requirements-service.txt"
DEV_PACKAGES = "install -r requirements.txt -r requirements-service.txt -r requirements-dev.txt"


def after(actions: list[str], action: Callable[[], None]) -> list[str]:
    actions.clear()
    action()
    return list(actions)


def test_a_fresh_machine_then_nothing_to_do(done: list[str]) -> None:
    assert after(done, set_up) == ["venv", TORCH_CPU, PACKAGES]
    assert after(done, set_up) == []


def test_tests_need_more_and_what_is_there_stays(done: list[str], place: Path) -> None:
    set_up()
    assert after(done, lambda: set_up(dev=True)) == [DEV_PACKAGES]
    assert after(done, set_up) == []  # what the tests need is no reason to install again
    assert after(done, lambda: set_up(service=True)) == []  # and holds what the service needs
    (place / "requirements.txt").write_text("torch\nsafetensors\n", encoding="utf-8")
    assert after(done, set_up) == [DEV_PACKAGES]


def test_the_service_needs_more_and_it_stays(done: list[str], place: Path) -> None:
    set_up()
    assert after(done, lambda: set_up(service=True)) == [SERVICE_PACKAGES]
    assert after(done, set_up) == []
    (place / "requirements-service.txt").write_text("fastapi\nuvicorn\n", encoding="utf-8")
    assert after(done, set_up) == [SERVICE_PACKAGES]
    assert after(done, lambda: set_up(dev=True)) == [DEV_PACKAGES]


def test_another_build_replaces_the_first_and_is_kept(done: list[str]) -> None:
    set_up()
    assert after(done, lambda: set_up("cu130")) == [UNINSTALL, TORCH_CUDA, PACKAGES]
    assert after(done, set_up) == []
    assert after(done, lambda: set_up("cu130")) == []


def test_a_mac_that_is_asked_for_a_build_has_only_one(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(environment.platform, "machine", lambda: "arm64")
    assert after(done, lambda: set_up("cpu")) == ["venv", "install torch==2.13.0", PACKAGES]
    assert after(done, lambda: set_up("cpu")) == []


def test_what_stood_in_is_remembered_as_such(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "obtainable", lambda build, system: "pypi")
    assert after(done, set_up) == ["venv", "install torch==2.13.0", PACKAGES]
    assert json.loads(environment.MARK.read_text(encoding="utf-8"))["build"] == "pypi"
    assert after(done, set_up) == []
    assert after(done, lambda: set_up("cpu")) == [UNINSTALL, TORCH_CPU, PACKAGES]


def test_an_interrupted_installation_is_taken_up_again(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_up()
    recorded = environment.run_pip

    def fail(arguments: list[str]) -> None:
        raise SetupError("no network")

    monkeypatch.setattr(environment, "run_pip", fail)
    with pytest.raises(SetupError):
        set_up("cu130")
    monkeypatch.setattr(environment, "run_pip", recorded)
    assert after(done, lambda: set_up("cu130")) == [UNINSTALL, TORCH_CUDA, PACKAGES]


def test_a_mark_that_cannot_be_read_counts_as_none(done: list[str]) -> None:
    set_up()
    environment.MARK.write_text("{", encoding="utf-8")
    assert after(done, set_up) == [UNINSTALL, TORCH_CPU, PACKAGES]
