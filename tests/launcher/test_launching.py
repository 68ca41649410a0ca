"""Signals reach the training process through accelerate's launcher, and its exit code comes back."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from launcher import training
from launcher.training import accelerate_command, exit_code, is_accelerate_configured

ROOT = Path(__file__).resolve().parents[2]
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to pass on; a console's Ctrl-C reaches all")

# Behaves as the simple launcher of accelerate does: 1 for any failure, and SIGTERM ends it alone.
FAKE_ACCELERATE = """
import subprocess, sys
sys.exit(1 if subprocess.run([sys.executable, *sys.argv[1:]]).returncode else 0)
"""

# A training script that trains nothing: it tells that it is ready and waits until it is asked to stop, but not for ever.
SCRIPT = """
import sys, threading, time
from library.train import app
from library.train.signals import StopRequest

def run(script, argv):
    if argv == ["mistake"]:
        from library.errors import UserError
        raise UserError("run.toml [training] learning_rat: unknown option")
    if argv == ["crash"]:
        raise RuntimeError("a bug")
    if argv == ["done"]:
        return 0
    stop = StopRequest()
    stop.listen()
    print("ready", flush=True)
    end = time.monotonic() + 120
    while not stop.wanted and time.monotonic() < end:
        threading.Event().wait(0.02)
    return stop.exit_code

app.run = run
app.main(app.Script("script.py", "adapter", "test"))
"""

LAUNCH = """
import signal, sys
from pathlib import Path
from launcher import training
for name in ("SIGHUP", "SIGINT"):  # ignored where the tests themselves run under nohup, or behind an `&`
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
training.venv_python = lambda: Path(sys.executable)
sys.exit(training.train(sys.argv[1:]))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(training, "venv_python", lambda: Path(sys.executable))
    (tmp_path / "fake_accelerate.py").write_text(FAKE_ACCELERATE, encoding="utf-8")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def faked(script: Path, *options: str) -> list[str]:
    """The command that starts the script through the launcher that is none."""
    return [sys.executable, str(script.with_name("fake_accelerate.py")), str(script), *options]


def launch(command: list[str]) -> subprocess.Popen[str]:
    """launch.py's part, in a process of its own, for it takes over the signals."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(LAUNCH), *command], stdout=subprocess.PIPE, text=True)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert "ready\n" in iter(process.stdout.readline, "")


@pytest.mark.parametrize(("what", "code"), [("done", 0), ("mistake", 2), ("crash", 1)])
def test_the_exit_code_comes_back(script: Path, what: str, code: int) -> None:
    assert launch(faked(script, what)).wait() == code


@posix_only
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 143)])
def test_a_signal_stops_the_training_in_its_own_time(script: Path, number: str, code: int) -> None:
    process = launch(faked(script))
    wait_until_ready(process)
    process.send_signal(getattr(signal, number))
    assert process.wait() == code


@posix_only
def test_when_accelerate_is_killed_the_training_is_waited_for(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what tells the training that it has a launcher to watch
    process = launch(faked(script))
    wait_until_ready(process)
    (accelerate,) = psutil.Process(process.pid).children()
    accelerate.kill()
    assert process.wait() == 143


@posix_only
def test_a_signal_before_the_training_has_begun_ends_the_launcher(tmp_path: Path, script: Path) -> None:
    starting = tmp_path / "starting.py"
    starting.write_text("import threading\nprint('ready', flush=True)\nthreading.Event().wait(60)\n", encoding="utf-8")
    process = launch([sys.executable, str(starting)])
    wait_until_ready(process)
    process.terminate()
    assert process.wait() == 143


@posix_only
def test_a_signal_while_the_launcher_is_started_is_passed_on(tmp_path: Path) -> None:
    early = """
        import signal, subprocess
        start = subprocess.Popen
        def interrupted(*given, **options):
            signal.raise_signal(signal.SIGTERM)
            return start(*given, **options)
        subprocess.Popen = interrupted
    """
    sleeper = [sys.executable, "-c", "import threading; threading.Event().wait(60)"]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(early) + textwrap.dedent(LAUNCH), *sleeper])
    assert process.wait() == 143


@posix_only
@pytest.mark.parametrize("what", ["mistake", "signal"])
def test_through_the_real_accelerate(script: Path, what: str) -> None:
    process = launch(accelerate_command(script, [what]))
    if what == "mistake":
        assert process.wait() == 2
        return
    wait_until_ready(process)
    process.terminate()
    assert process.wait() == 143


CODES = [
    # what the launcher returned, training processes, their codes, signals passed on, the code of the whole
    (0, 1, [0], [], 0),
    (1, 1, [2], [], 2),
    (1, 1, [143], [15], 143),
    (1, 1, [130], [2], 130),
    (1, 1, [], [], 1),  # killed, or a bug
    (1, 1, [], [15], 143),  # the second signal leaves at once
    (-15, 0, [], [15], 143),  # before there was any training
    (-9, 0, [], [], 137),
    (3, 0, [], [], 3),  # accelerate did not understand its options
    (1, 2, [2], [], 2),  # the other one was ended by the launcher before it could say the same
    (1, 2, [143], [], 1),  # one was killed, whereupon the launcher stopped the other
    (1, 2, [143, 143], [15], 143),
    (0, 2, [0, 0], [], 0),
]


@pytest.mark.parametrize(("launcher", "processes", "exits", "passed_on", "code"), CODES)
def test_the_code_of_the_whole(launcher: int, processes: int, exits: list[int], passed_on: list[int], code: int) -> None:
    assert exit_code(launcher, processes, exits, passed_on) == code


def test_without_options_for_accelerate_one_process_gets_all_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = accelerate_command(Path("train.py"), ["--seed", "1"])
    assert command[1:4] == ["-m", "accelerate.commands.launch", "--quiet"]
    assert command[command.index("--num_processes") + 1] == "1"
    assert command[command.index("--num_cpu_threads_per_process") + 1] == str(os.cpu_count())
    assert command[-3:] == ["train.py", "--seed", "1"]


def test_options_for_accelerate_stand_before_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    command = accelerate_command(Path("train.py"), [], ["--multi_gpu", "--num_processes", "2"])
    assert command[3:] == ["--quiet", "--multi_gpu", "--num_processes", "2", "train.py"]


def test_what_accelerate_was_configured_to_do_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert not is_accelerate_configured()
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate/default_config.yaml").touch()
    assert is_accelerate_configured()
    assert accelerate_command(Path("train.py"), [])[3:] == ["--quiet", "train.py"]
