"""Keeping what is printed short."""
from __future__ import annotations

_LISTED = 20  # of one kind; the rest is counted


def shortened(messages: list[str], kind: str) -> list[str]:
    """The first messages, and how many more of the kind there are."""
    rest = len(messages) - _LISTED
    return messages if rest <= 0 else [*messages[:_LISTED], f"... and {rest} more {kind}"]
