"""Copies what a job prints into its log, of which the middle is left out where it grows too long. Standard library only."""
from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import IO

PIECE_BYTES = 1 << 16
HEAD = 0.8  # of the log; the rest is kept for the end
NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Copier(threading.Thread):
    """Reads a pipe to its end. `closed` is set when all that had it open are gone."""

    def __init__(self, pipe: IO[bytes], log: int, most: int) -> None:
        super().__init__(daemon=True)
        self.closed = threading.Event()
        self._pipe, self._log = pipe, log
        self._room = int(most * HEAD)
        self._tail, self._most_tail_bytes = bytearray(), most - self._room
        self._left_out = 0

    def run(self) -> None:
        while piece := os.read(self._pipe.fileno(), PIECE_BYTES):
            self._write(piece[: self._room])
            self._keep(piece[self._room :])
            self._room -= min(self._room, len(piece))
        self.closed.set()

    def finish(self, seconds: float) -> None:
        """Wait for the end of the pipe, at most so long where somebody has it open yet, and write what was kept for the end."""
        self.join(seconds)
        if self.is_alive() and self._is_closed():  # this process was stopped for a while
            self.join()
        if self._left_out:
            self._write(f"\n[... {self._left_out} bytes of the log are left out here ...]\n".encode())
        self._write(bytes(self._tail))

    def _is_closed(self) -> bool:
        """Whether nobody can write there any more. Windows cannot tell."""
        if not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self._pipe.fileno(), 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def _keep(self, piece: bytes) -> None:
        self._tail += piece
        surplus = len(self._tail) - self._most_tail_bytes
        if surplus > 0:
            del self._tail[:surplus]
            self._left_out += surplus

    def _write(self, piece: bytes) -> None:
        """What a full disk does not take is left out: the job must not wait for the log."""
        while piece:
            try:
                piece = piece[os.write(self._log, piece) :]
            except OSError:
                self._left_out += len(piece)
                return


def open_log(path: Path) -> int:
    """The log, to add to. A link in its place is refused: the job could have put it there to have us write elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINKS, 0o600)
