"""The parts of a run that no other test sees: its command with several processes, its ending, its files."""
from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from library.errors import UserError
from service.executors.base import Status
from service.executors.child import Child
from service.executors.choose import make_executor, slots_of
from service.executors.ending import DISK_FULL, DISK_FULL_CODE, exit_code_of, explanation
from service.executors.local import LocalExecutor
from service.executors.nodes import MAIN_ADDRESS, on_this_node
from service.executors.output import Copier, open_log
from service.executors.runner import Supervisor
from service.settings import ServiceSettings
from tests.service.executors.jobs import local, record, shell, wait_for

ONE_OF_TWO = "--num_processes 4 --num_machines 2 --multi_gpu --mixed_precision no --dynamo_backend no"


def test_one_process_is_started_as_it_is(tmp_path: Path) -> None:
    spec = shell(tmp_path, "true")
    assert on_this_node(spec) == list(spec.argv)


def test_several_processes_are_started_by_accelerate(tmp_path: Path) -> None:
    spec = shell(tmp_path, "", processes=2)._replace(argv=("/bin/python", "train.py", "--seed", "1"))
    expected = "/bin/python -m accelerate.commands.launch --quiet --num_processes 2 --num_machines 1 --multi_gpu"
    assert " ".join(on_this_node(spec)) == f"{expected} --mixed_precision no --dynamo_backend no --main_process_port 0 train.py --seed 1"


def test_each_node_is_told_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAIN_ADDRESS, "fd00::1:4711")
    monkeypatch.setenv("SLURM_NODEID", "1")
    spec = shell(tmp_path, "", processes=2, nodes=2)._replace(argv=("/bin/python", "train.py"))
    place = "--machine_rank 1 --main_process_ip fd00::1 --main_process_port 4711"
    assert " ".join(on_this_node(spec)).endswith(f"{ONE_OF_TWO} {place} train.py")


@pytest.mark.parametrize(
    ("status", "launcher", "code"),
    [
        ("", 1, 1),
        ("pid 1\nexit 0\n", 1, 0),
        ("pid 1\npid 2\nexit 0\n", 1, 1),  # one of them was killed
        ("pid 1\npid 2\nexit 143\nexit 2\n", 1, 2),
        ("pid 1\npid 2\nexit 143\nexit 0\n", 1, 143),
        ("exit x\nexit \npid 1\n\0", 4, 4),  # a job may write anything there
    ],
)
def test_the_code_of_the_training(status: str, launcher: int, code: int) -> None:
    assert exit_code_of(launcher, status) == code


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (("pid 1\nexit 2\nlauncher 1\n", "pid 1\nlauncher 143\n"), 2),  # the other was ended before it could say the same
        (("launcher 143\n", "pid 1\nexit 2\nlauncher 1\n"), 2),
        (("launcher 1\n", "launcher 143\n"), 1),
        (("", "launcher 143\n"), 143),  # one was ended
        (("pid 1\nexit 143\nlauncher 143\n", "pid 1\nexit 143\nlauncher 1\n"), 143),
        (("pid 1\nexit 0\nlauncher 0\n", "pid 1\nexit 0\nlauncher 0\n"), 0),
    ],
)
def test_the_code_of_the_training_on_two_nodes(tmp_path: Path, told: tuple[str, str], code: int) -> None:
    own = record(tmp_path, shell(tmp_path, ""))
    own.folder.mkdir(parents=True)
    for node, lines in enumerate(told):
        if lines:
            own.write_node(str(node), lines)
    assert exit_code_of(max(143, code) if code else 0, *own.nodes(2)) == code


def test_a_node_that_cannot_tell_how_it_ended_has_ended_all_the_same(tmp_path: Path) -> None:
    own = record(tmp_path, shell(tmp_path, ""))
    (own.folder / "node-0.txt").mkdir(parents=True)  # nothing can be written there
    own.write_node("0", "exit 0\n")
    assert own.nodes(1) == [""]


class EndsAsItIsAskedTo:
    """A job that comes to its end while the runner waits, and somebody asks it to end right after that."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask, self._has_ended, self.was_made_to = ask, False, False

    def wait(self, _seconds: float) -> None:
        self._has_ended = True
        self._ask()

    def has_ended(self) -> bool:
        return self._has_ended

    def terminate(self) -> bool:
        self.was_made_to = True
        return True

    def sweep(self, _seconds: float) -> None:
        pass


def test_what_has_ended_by_itself_was_not_made_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On several nodes, it may be what had srun end the others, and be asked to end itself before its runner has looked."""
    monkeypatch.setattr("service.executors.runner.signal.signal", lambda *_: None)
    spec = shell(tmp_path, "")
    own = record(tmp_path, spec)
    child = EndsAsItIsAskedTo(lambda: own.ask_to_end(1.0))
    assert (Supervisor(own, spec).watch(child), child.was_made_to) == ("", False)  # type: ignore[arg-type]


class NotThereYet(EndsAsItIsAskedTo):
    """A job that its sandbox has not started when it is asked to end for the first time, and ends when it hears of it."""

    asked = 0

    def wait(self, _seconds: float) -> None:
        self._ask()

    def terminate(self) -> bool:
        self.asked += 1
        self._has_ended = self.asked == 2
        return self._has_ended


def test_what_is_not_there_yet_is_asked_to_end_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.executors.runner.signal.signal", lambda *_: None)
    spec = shell(tmp_path, "")
    own = record(tmp_path, spec)
    child = NotThereYet(lambda: own.ask_to_end(1000.0))
    assert (Supervisor(own, spec).watch(child), child.asked) == ("canceled", 2)  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt", reason="taskkill ends what is left there")
def test_who_is_passed_by_in_one_look_is_left_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent had started it behind the look, and was gone when the look came there."""
    looks, killed = iter([[], [4711], [4711], [4711]]), []
    monkeypatch.setattr("service.executors.child.descendants", lambda _: next(looks, []))
    monkeypatch.setattr("service.executors.child.send", lambda pid, number: killed.append((pid, number)))
    child = Child([sys.executable, "-ISc", ""], tmp_path, dict(os.environ), open_log(tmp_path / "log"), None)
    wait_for(child.has_ended)
    child.sweep(0.0)
    assert killed[0] == (4711, signal.SIGTERM)


class Late(Copier):
    """Does not come to its turn until somebody waits for it without end."""

    def __init__(self, pipe: int, log: int) -> None:
        super().__init__(os.fdopen(pipe, "rb"), log, most=1000)
        self.may_begin = threading.Event()

    def run(self) -> None:
        self.may_begin.wait()
        super().run()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            self.may_begin.set()
        super().join(timeout)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="it cannot be known here who has a pipe open")
@pytest.mark.parametrize("is_open", [False, True])
def test_the_end_of_a_log_is_waited_for_unless_it_may_never_come(tmp_path: Path, is_open: bool) -> None:
    end, other_end = os.pipe()
    os.write(other_end, b"the end\n")
    if not is_open:
        os.close(other_end)
    copier = Late(end, open_log(tmp_path / "log"))
    copier.start()
    copier.finish(0)
    assert (tmp_path / "log").read_bytes() == (b"" if is_open else b"the end\n")
    if is_open:
        os.close(other_end)
    copier.join()


def test_codes_beyond_signals_are_told_too(tmp_path: Path) -> None:
    assert explanation(250, tmp_path / "no.log") == "it failed with exit code 250"


def test_what_is_to_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = shell(tmp_path, "true", readable=(tmp_path,), hidden=(tmp_path, tmp_path), device="0,1", network=True, environment={"A": "ü"})
    record(tmp_path, spec).write_spec(spec)
    record(tmp_path, spec).write_spec(spec._replace(stage="training", device="2"))  # the first word counts
    assert record(tmp_path, spec).spec() == spec


def test_how_it_ended_can_be_written_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = shell(tmp_path, "true")
    own = record(tmp_path, spec)
    own.write_spec(spec)
    assert own.claim(pid=1)
    occupied = sum(path.stat().st_size for path in own.folder.iterdir())
    own.ask_to_end(2.5)
    own.write_exit(Status("ended", 3, "ü" * 5000, "here"))
    assert sum(path.stat().st_size for path in own.folder.iterdir()) == occupied
    assert own.exit() == ("ended", 3, "ü" * 500, "here")
    assert own.asked_to_end() == 2.5


def test_what_has_no_room_reserved_is_written_all_the_same(tmp_path: Path) -> None:
    own = record(tmp_path, shell(tmp_path, "true"))
    own.ask_to_end(1.0)  # before it was submitted
    own.write_exit(Status("ended", 143, "canceled", "here"))
    assert (own.asked_to_end(), own.exit()) == (1.0, ("ended", 143, "canceled", "here"))


@pytest.mark.parametrize("told", [b"OSError: [Errno 28] No space left on device", b"OSError: [Errno 122] Disk quota exceeded"])
def test_a_disk_that_is_full_is_told(told: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"begin\n" + told + b"\n")
    assert explanation(1, log) == DISK_FULL
    log.write_bytes(b"begin\n")  # it could not even say so
    assert explanation(1, log) == "it failed with exit code 1"
    monkeypatch.setattr("service.executors.ending.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert explanation(1, log) == DISK_FULL
    assert explanation(143, log) == "killed by SIGTERM"  # it was asked to


@pytest.mark.parametrize("launched", [False, True])
def test_what_a_crash_raised_is_told(launched: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "Traceback (most recent call last):\n  raise RuntimeError\nValueError: the first\n\nDuring handling of the above exception:\n"
        "[rank0]: safetensors.SafetensorError: header too large\n"
        + "Traceback (most recent call last):\nsubprocess.CalledProcessError: Command '[...]' returned non-zero exit status 1.\n" * launched,
        encoding="utf-8",
    )
    assert explanation(1, log) == "it failed with exit code 1: safetensors.SafetensorError: header too large"
    assert explanation(139, log) == "killed by SIGSEGV"


@pytest.mark.parametrize(("code", "reason"), [(DISK_FULL_CODE, DISK_FULL), (1, "its runner could not start")])
def test_a_runner_that_could_not_begin_is_told(code: int, reason: str, tmp_path: Path) -> None:
    spec, executor = shell(tmp_path, "true"), local(tmp_path)
    record(tmp_path, spec).write_spec(spec)
    assert executor.status(spec.handle).state == "waiting"
    executor._runners[spec.handle] = SimpleNamespace(poll=lambda: code)  # type: ignore[assignment]
    assert executor.status(spec.handle) == ("lost", None, reason, None)


def test_the_settings_name_the_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_executor(ServiceSettings(data_dir=tmp_path)), LocalExecutor)
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(UserError, match=r'pip install "ray\[default\]"'):
        make_executor(ServiceSettings(data_dir=tmp_path, executor="ray"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install slurm-client"):
        make_executor(ServiceSettings(data_dir=tmp_path, executor="slurm"))


def test_the_settings_name_the_slots(tmp_path: Path) -> None:
    assert slots_of(ServiceSettings(data_dir=tmp_path, devices=("2", "3"))).take(["2"]) == "3"
