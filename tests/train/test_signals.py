"""Requests to stop: the first is remembered, one gesture counts once, a second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from library.train import signals, status
from library.train.signals import Stopped, StopRequest
from library.train.status import STATUS_FILE, write_status

ROOT = Path(__file__).resolve().parents[2]


class Left(Exception):
    """The process would have ended here."""


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that stands still; the process that would leave raises Left instead."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(signals.os, "_exit", leave)
    return now


@pytest.fixture
def request_(clock, monkeypatch) -> StopRequest:
    monkeypatch.delenv(signals.LAUNCHED_BY_ACCELERATE, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    request = StopRequest()
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks(request_, number, code, capfd):
    request_.check()
    signal.raise_signal(number)
    assert (request_.wanted, request_.reason, request_.exit_code) == (True, number.name, code)
    assert "finishing this step" in capfd.readouterr().err
    with pytest.raises(Stopped):
        request_.check()


def test_one_gesture_that_arrives_twice_counts_once(request_, clock):
    signal.raise_signal(signal.SIGINT)
    clock[0] += signals.SAME_GESTURE_S / 2
    signal.raise_signal(signal.SIGTERM)
    assert (request_.reason, request_.exit_code) == ("SIGINT", 130)


def test_a_later_signal_leaves_at_once_and_the_code_is_told(request_, clock, tmp_path, monkeypatch):
    """It may be the launcher's, because another process has ended: then nobody else would tell how this one did."""
    monkeypatch.setenv(STATUS_FILE, str(tmp_path / "status"))
    signal.raise_signal(signal.SIGTERM)
    clock[0] += signals.SAME_GESTURE_S * 1.5
    with pytest.raises(Left) as left:
        signal.raise_signal(signal.SIGINT)
    assert left.value.args == (130,)
    assert (tmp_path / "status").read_text(encoding="utf-8") == "exit 130\n"


def test_the_code_is_told_once_whenever_a_signal_comes(request_, clock, tmp_path, monkeypatch):
    monkeypatch.setenv(STATUS_FILE, str(tmp_path / "status"))
    signal.raise_signal(signal.SIGTERM)
    clock[0] += signals.SAME_GESTURE_S * 1.5

    def tell_under_fire(line: str) -> None:
        signal.raise_signal(signal.SIGTERM)
        write_status(line)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(status, "write_status", tell_under_fire)
    status.write_exit(143)
    assert (tmp_path / "status").read_text(encoding="utf-8") == "exit 143\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_while_something_is_written_does_no_harm():
    """As when a progress bar is drawn on a slow terminal: Python calls what takes signals in the middle of its own writing."""
    program = (
        "import os, signal, sys, threading\n"
        "from library.train.signals import StopRequest\n"
        "request = StopRequest()\n"
        "request.listen()\n"
        "class Slow(io.RawIOBase):\n"
        "    def writable(self): return True\n"
        "    def write(self, data):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        return os.write(2, data)\n"
        "sys.stderr = io.TextIOWrapper(io.BufferedWriter(Slow()))\n"
        "print('50 %', file=sys.stderr, flush=True)\n"
        "print(request.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", "import io\n" + program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, "50 %" in done.stderr, "finishing this step" in done.stderr) == ("SIGTERM\n", True, True), done.stderr


def test_a_launcher_is_not_impatient(request_, clock, monkeypatch):
    """Its SIGTERM may be the second one: what is being saved is saved."""
    monkeypatch.setenv(signals.LAUNCHED_BY_ACCELERATE, "no")
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
        clock[0] += signals.SAME_GESTURE_S * 5
    assert (request_.reason, request_.exit_code) == ("SIGTERM", 143)
    with pytest.raises(Left):
        signal.raise_signal(signal.SIGINT)


def test_a_launcher_that_goes_between_two_questions_has_gone(clock):
    parent = Mock()
    parent.is_running.return_value = True
    parent.status.side_effect = psutil.NoSuchProcess(1)
    request = StopRequest()
    request._watch_parent(parent)
    assert (request.reason, request.exit_code) == ("the launcher has ended", 143)


@pytest.mark.parametrize("first", ["launcher", "signal"])
def test_a_gesture_that_has_ended_the_launcher_is_told_whichever_is_noticed_first(request_, clock, first):
    """A pass over a large model takes seconds, in which the thread that watches the launcher goes on, and no signal is heard."""
    launcher = Mock()
    launcher.is_running.return_value = False
    happens = [lambda: request_._watch_parent(launcher), lambda: signal.raise_signal(signal.SIGINT)]
    for happen in happens if first == "launcher" else reversed(happens):
        happen()
        clock[0] += signals.SAME_GESTURE_S * 5
    assert (request_.reason, request_.exit_code) == ("SIGINT", 130)


def test_the_end_of_the_parent_asks():
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    request = StopRequest()
    watching = threading.Thread(target=request._watch_parent, args=(psutil.Process(parent.pid),))
    watching.start()
    assert not request.wanted
    parent.communicate(b"\n")
    watching.join()
    assert (request.wanted, request.exit_code) == (True, 143)


def test_the_launcher_is_watched_only_where_there_is_one(clock, monkeypatch):
    watched = []
    monkeypatch.setattr(signals.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(StopRequest, "_watch_parent", lambda self, parent: watched.append(parent.pid))
    monkeypatch.delenv(signals.LAUNCHED_BY_ACCELERATE, raising=False)
    StopRequest().listen()
    assert watched == []
    monkeypatch.setenv(signals.LAUNCHED_BY_ACCELERATE, "no")
    before = set(threading.enumerate())
    StopRequest().listen()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert watched == [os.getppid()]
