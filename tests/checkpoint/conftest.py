"""A process that vanishes at a chosen instant."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

DEALINGS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fsync"}
KILLED, DONE, FAILED = 9, 0, 1


@pytest.fixture
def killed_before() -> Callable[[int, Callable[[], None]], bool]:
    """Runs a function in a forked process that vanishes, as by SIGKILL, just before its n-th dealing with the file system.

    False if it had fewer and ran to its end.
    """
    if not hasattr(os, "fork"):
        pytest.skip("the process that is killed is a forked one; this system has no fork")
    return _killed_before


def _killed_before(dealing: int, function: Callable[[], None]) -> bool:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            _kill_before(dealing)
            function()
            code = DONE
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (KILLED, DONE)
    return code == KILLED


def _kill_before(dealing: int) -> None:
    """Nothing buffered is written: the process just ends."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in DEALINGS:
            count += 1
            if count == dealing:
                os._exit(KILLED)

    os.fsync = lambda descriptor: watch("fsync", ())  # has no audit event of its own; a kill does not empty the system's cache
    sys.addaudithook(watch)
