"""The one exception for mistakes that the person at the keyboard can mend."""
from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave us: printed without a traceback, exit code 2.

    Each message is one line: what is wrong, where (file, table, key or line), and what to write instead.
    """

    def __init__(self, *messages: str):
        super().__init__("\n".join(messages))
        self.messages = messages
