"""Requests to stop: the first is remembered, one gesture counts once, a second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import psutil
import pytest

from library.train import signals
from library.train.signals import Stopped, StopRequest


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
def test_the_first_signal_asks(request_, number, code, capsys):
    request_.check()
    signal.raise_signal(number)
    assert (request_.wanted, request_.reason, request_.exit_code) == (True, number.name, code)
    assert "finishing this step" in capsys.readouterr().err
    with pytest.raises(Stopped):
        request_.check()


def test_one_gesture_that_arrives_twice_counts_once(request_, clock):
    signal.raise_signal(signal.SIGINT)
    clock[0] += signals.SAME_GESTURE_S / 2
    signal.raise_signal(signal.SIGTERM)
    assert (request_.reason, request_.exit_code) == ("SIGINT", 130)


def test_a_later_signal_leaves_at_once(request_, clock):
    signal.raise_signal(signal.SIGTERM)
    clock[0] += signals.SAME_GESTURE_S * 1.5
    with pytest.raises(Left) as left:
        signal.raise_signal(signal.SIGINT)
    assert left.value.args == (130,)


def test_a_launcher_that_goes_between_two_questions_has_gone(clock):
    parent = Mock()
    parent.is_running.return_value = True
    parent.status.side_effect = psutil.NoSuchProcess(1)
    request = StopRequest()
    request._watch_parent(parent)
    assert (request.reason, request.exit_code) == ("the launcher has ended", 143)


def test_the_first_reason_stays(clock):
    request = StopRequest()
    request.ask("SIGINT", 130)
    request.ask("the launcher has ended", 143)
    assert (request.reason, request.exit_code) == ("SIGINT", 130)


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
