"""Stopping in an orderly way: SIGINT, SIGTERM, or the launcher's death ask; the loop stops after its step."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

import psutil

LAUNCHED_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"  # the launcher sets it for the processes that it starts
FINISHES_STEP = "finishing this step, then saving weights and state"
SAME_GESTURE_S = 1.0  # one Ctrl-C reaches a process twice: from the terminal and from the launcher


class Stopped(Exception):
    """Somebody asked to stop at a point where the work cannot go on from later."""


class StopRequest:
    """Remembers that somebody asked to stop. A second signal, a second or more later, leaves at once.

    `answer`: what the person is told that happens now.
    `exit_code`: 130 after SIGINT, 143 after SIGTERM or when the launcher has died.
    """

    def __init__(self, answer: str = FINISHES_STEP) -> None:
        self.answer = answer
        self.wanted = False
        self.reason = ""
        self.exit_code = 0
        self._asked_at = 0.0

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM, and watch the launcher, which does not pass SIGTERM on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if LAUNCHED_BY_ACCELERATE in os.environ:
            threading.Thread(target=self._watch_parent, args=(psutil.Process(os.getppid()),), daemon=True).start()

    def ask(self, reason: str, exit_code: int) -> None:
        if not self.wanted:
            self.reason, self.exit_code, self._asked_at = reason, exit_code, time.monotonic()
            self.wanted = True

    def check(self) -> None:
        """Raise Stopped if somebody asked: for work before the first step, which leaves nothing to save."""
        if self.wanted:
            raise Stopped

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        exit_code = 128 + number
        if self.wanted and time.monotonic() - self._asked_at > SAME_GESTURE_S:
            os._exit(exit_code)
        if not self.wanted:
            name = signal.Signals(number).name
            self.ask(name, exit_code)
            print(f"\n{name}: {self.answer}. Once more to leave at once.", file=sys.stderr, flush=True)

    def _watch_parent(self, parent: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):  # it went between two questions
            while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        self.ask("the launcher has ended", 128 + signal.SIGTERM)
