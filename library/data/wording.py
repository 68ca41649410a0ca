"""Keeping what is printed short."""
from __future__ import annotations

_LISTED = 20  # of one kind; the rest is counted
_NAMED = 8  # in one line


def shortened(messages: list[str], kind: str) -> list[str]:
    """The first messages, and how many more of the kind there are."""
    rest = len(messages) - _LISTED
    return messages if rest <= 0 else [*messages[:_LISTED], f"... and {rest} more {kind}"]


def shortened_names(names: list[str]) -> str:
    """All of a few names; of many the first and the last ones, and how many there are."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    half = _NAMED // 2
    return f"{', '.join(names[:half])}, ..., {', '.join(names[-half:])} ({len(names)} in all)"
