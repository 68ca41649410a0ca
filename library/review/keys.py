"""Letters from the person: single keys where there is a terminal (Windows or POSIX), else the letters of what is piped in."""
from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ESCAPE = "\x1b"
_CTRL_C = "\x03"
_POLL_S = 0.1  # how soon somebody's wish to stop is noticed
_SEQUENCE_S = 0.02  # an arrow key sends its bytes at once; a person's next key comes later


def pressed_keys(descriptor: int | None, stopped: Callable[[], bool]) -> Iterator[str]:
    """Lower-case letters and ESCAPE, until the input ends or `stopped` says so. None: there is no input."""
    if descriptor is None:
        return
    if not os.isatty(descriptor):
        yield from _letters(_bytes(descriptor, stopped, sequences=False))
    elif sys.platform == "win32":
        yield from _windows_keys(stopped)
    else:
        with _unbuffered(descriptor):
            yield from _letters(_bytes(descriptor, stopped, sequences=True))


def input_descriptor() -> int | None:
    """That of the standard input, if this process has one."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # none, or something that is no file
        return None


def _letters(pieces: Iterator[bytes]) -> Iterator[str]:
    for piece in pieces:
        if len(piece) == 1:
            yield from (letter for letter in piece.decode("utf-8", "ignore").lower() if not letter.isspace())


def _bytes(descriptor: int, stopped: Callable[[], bool], sequences: bool) -> Iterator[bytes]:
    """Byte by byte, but the bytes of an arrow or function key together."""
    while not stopped():
        if not _readable(descriptor, _POLL_S):
            continue
        piece = os.read(descriptor, 1)
        if sequences and piece == b"\x1b" and _readable(descriptor, _SEQUENCE_S):
            piece += os.read(descriptor, 1)
            while piece[1:2] in (b"[", b"O") and (len(piece) == 2 or not 0x40 <= piece[-1] <= 0x7E):
                piece += os.read(descriptor, 1)
        if not piece:
            return
        yield piece


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, within a time. Windows cannot say so of a pipe: reading waits then."""
    if sys.platform == "win32":
        return True
    import select

    return bool(select.select([descriptor], [], [], seconds)[0])


@contextmanager
def _unbuffered(descriptor: int) -> Iterator[None]:
    """Each key arrives at once, without Enter and unseen; Ctrl-C stays a signal."""
    assert sys.platform != "win32"
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _windows_keys(stopped: Callable[[], bool]) -> Iterator[str]:
    if sys.platform != "win32":  # which is how the type checker learns of it
        return
    import msvcrt

    while not stopped():
        if not msvcrt.kbhit():
            time.sleep(_POLL_S)
            continue
        key = msvcrt.getwch()
        if key in "\x00\xe0":  # an arrow or function key: its code comes next
            msvcrt.getwch()
        elif key == _CTRL_C:
            return
        elif not key.isspace():
            yield key.lower()
