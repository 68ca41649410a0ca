"""`tadpole` as a program: how it starts and ends, what its help says."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from library import __version__
from library.config.text_files import read_toml
from service.cli.app import main
from service.cli.show import figures_of, tell_columns

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("login", "train-diffuser", "train", "download-model", "get-most-recent-jobs", "check-job-status", "get-training-jobs", "get-training-logs", "serve", "jobs", "keys")


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run([sys.executable, "-m", "service.cli", *words], capture_output=True, text=True, encoding="utf-8", env=environment, cwd=ROOT)


def test_it_starts_without_what_it_does_not_need() -> None:
    program = (
        "import sys; from service.cli.app import main; main(['--help']);"
        "print(sorted({'fastapi', 'sqlalchemy', 'httpx', 'yaml', 'rich', 'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.stderr == "[]\n"


def test_the_help_names_every_command() -> None:
    ended = run("--help")
    named = [line.split()[0] for line in ended.stdout.partition("Commands:")[2].splitlines() if line.startswith("  ") and line[2] != " "]
    assert (ended.returncode, ended.stderr, named) == (0, "", list(COMMANDS))


@pytest.mark.parametrize("command", [*COMMANDS[:8], "jobs cancel", "keys create", "keys list", "keys revoke"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: tadpole {command} ") and len(text.splitlines()) > 5


@pytest.mark.parametrize(
    ("option", "default"),
    [("--num-prior-class-images", "0"), ("--revision", "main"), ("--log-level", "INFO"), ("--prior-class-image-dir", ""), ("--prior-class-prompt", ""), ("--training-args", ""), ("--api-key", "")],
)
def test_the_documented_options_are_there(option: str, default: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train-diffuser", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"{option} " in text
    if default:
        assert f"[default: {default}]" in text.partition(f"{option} ")[2]


@pytest.mark.parametrize("words", [["nothing"], ["train", "--nothing"], ["jobs", "nothing"], ["check-job-status"], ["get-training-jobs", "--last-n", "0"]])
def test_mistakes_on_the_command_line_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tadpole {__version__}\n"


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert main(["get-training-jobs", "tadpole_a_b"]) == 1
    assert capsys.readouterr().err == "error: this needs httpx: pip install -r requirements-service.txt\n"


def test_an_interruption_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.jobs.find_access", interrupt)
    assert main(["get-training-jobs"]) == 1
    assert capsys.readouterr().err.strip() == "error: interrupted"


@pytest.mark.skipif(os.name == "nt", reason="there is no /dev/full")
def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run([sys.executable, "-m", "service.cli", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert ended.returncode == 1 and "No space left" in ended.stderr


def test_letters_that_the_console_does_not_have() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", "check-job-status", "ключ"], capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 2 and ended.stderr.startswith(b"error: '????' is no id")


def test_the_program_is_installed_under_its_name() -> None:
    project = read_toml(ROOT / "pyproject.toml", "project file")["project"]
    module, _, function = project["scripts"]["tadpole"].partition(":")
    assert (module, function) == (main.__module__, main.__name__)


def test_columns_line_up_and_hold_to_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tell_columns(("ID", "NAME"), [["a", "two\nlines"], ["longer", None], ["b", ""]])
    assert capsys.readouterr().out == "ID      NAME\na       two lines\nlonger  -\nb       -\n"


def test_figures() -> None:
    assert figures_of({"loss": 0.12345, "speed": 2, "eta_s": 3725.4}) == "loss 0.1235, 2.00 steps/s, 1:02:05 left"
    assert figures_of({"step": 3, "loss": None}) == ""
