"""Stopping in an orderly way: SIGINT, SIGTERM, or the launcher's death ask; the loop stops after its step."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import psutil

from library.train.status import write_exit

LAUNCHED_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"  # the launcher sets it for the processes that it starts
FINISHES_STEP = "finishing this step, then saving weights and state"
STDERR = 2
SAME_GESTURE_S = 1.0  # one Ctrl-C reaches a process twice: from the terminal and from the launcher


class Stopped(Exception):
    """Somebody asked to stop at a point where the work cannot go on from later."""


class StopRequest:
    """Remembers that somebody asked to stop. A second signal, a second or more later, leaves at once, if it is a person's.

    `answer`: what the person is told that happens now.
    """

    def __init__(self, answer: str = FINISHES_STEP) -> None:
        self.answer = answer
        self._signal: signal.Signals | None = None
        self._signalled_at = 0.0
        self._launcher_ended = False

    @property
    def wanted(self) -> bool:
        return self._signal is not None or self._launcher_ended

    @property
    def reason(self) -> str:
        """A signal says more than the end of the launcher, which the same Ctrl-C has reached: whichever is noticed first."""
        if self._signal is not None:
            return self._signal.name
        return "the launcher has ended" if self._launcher_ended else ""

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM or when the launcher has died."""
        number = self._signal or signal.SIGTERM
        return 128 + number if self.wanted else 0

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM, and watch the launcher, which does not pass SIGTERM on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if LAUNCHED_BY_ACCELERATE in os.environ:
            threading.Thread(target=self._watch_parent, args=(psutil.Process(os.getppid()),), daemon=True).start()

    def ask(self, number: int) -> None:
        """As a signal of this number asks."""
        self._signalled_at = time.monotonic()
        self._signal = signal.Signals(number)

    def check(self) -> None:
        """Raise Stopped if somebody asked: for work before the first step, which leaves nothing to save."""
        if self.wanted:
            raise Stopped

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Python calls it between two steps of its own: after a pass over a large model, the launcher may be gone for seconds."""
        if self._signal is None:
            self.ask(number)
            told = f"\n{self.reason}: {self.answer}. A further SIGINT (Ctrl-C) leaves at once.\n"
            with suppress(OSError):  # past Python's file, which may be in the middle of writing something else
                os.write(STDERR, told.encode())
        elif time.monotonic() - self._signalled_at > SAME_GESTURE_S and not self._is_of_launcher(number):
            try:
                write_exit(128 + number)
            finally:
                os._exit(128 + number)

    def _is_of_launcher(self, number: int) -> bool:
        """It sends SIGTERM to all when one has ended, or when it is asked to end itself: later where the machine is busy."""
        return number == signal.SIGTERM and LAUNCHED_BY_ACCELERATE in os.environ

    def _watch_parent(self, parent: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):  # it went between two questions
            while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        self._launcher_ended = True
