"""Keys are read from a terminal at once, from anything else letter by letter; the terminal is left as it was."""
from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from library.review import keys
from library.review.keys import ESCAPE, input_descriptor, pressed_keys


def never() -> bool:
    return False


def piped(content: bytes) -> list[str]:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    try:
        return list(pressed_keys(reading, never))
    finally:
        os.close(reading)


def test_letters_from_a_pipe():
    assert piped(b"s\nE s\r\n\xc3\xa9q\n") == ["s", "e", "s", "q"]
    assert piped(b"s\x1b\n") == ["s", ESCAPE]
    assert piped(b"") == []


def test_no_input_at_all(monkeypatch):
    assert list(pressed_keys(None, never)) == []
    monkeypatch.setattr(sys, "stdin", None)
    assert input_descriptor() is None


def test_a_wish_to_stop_ends_the_waiting():
    reading, writing = os.pipe()
    answers = iter([False, False, True])
    assert list(pressed_keys(reading, lambda: next(answers))) == []
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_keys_of_a_terminal_come_without_enter_and_leave_it_as_it_was():
    import termios

    main, terminal = os.openpty()
    before = termios.tcgetattr(terminal)
    pressed = pressed_keys(terminal, never)
    found = []
    for sent in (b"s", b"\x1b[A\x1b[15~\x1bOPE"):  # the second: up, F5, F1, E
        os.write(main, sent)
        found.append(next(pressed))
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
    os.write(main, b"\x1b")
    found.append(next(pressed))
    pressed.close()
    assert found == ["s", "e", ESCAPE]
    assert termios.tcgetattr(terminal) == before
    os.close(main)
    os.close(terminal)


def test_keys_of_a_windows_console(monkeypatch):
    waiting = ["s", " ", "\xe0", "H", "\x00", "s", "E", "\x1b", "\x03", "never reached"]
    polls = iter([False, *[True] * 20])
    fake = SimpleNamespace(kbhit=lambda: next(polls), getwch=lambda: waiting.pop(0))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(keys, "_POLL_S", 0)
    monkeypatch.setattr(keys.sys, "platform", "win32")
    monkeypatch.setattr(keys.os, "isatty", lambda _descriptor: True)
    assert list(pressed_keys(0, never)) == ["s", "e", ESCAPE]
    assert waiting == ["never reached"]
