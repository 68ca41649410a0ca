"""Guesses which name or word was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(written: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `written` is probably a misspelling of."""
    known = list(candidates)
    tidy = written.strip().lower().replace("-", "_").replace(" ", "_")
    if tidy in known:
        return tidy
    begun = [name for name in known if tidy and name.startswith(tidy)]
    if len(begun) == 1:  # an abbreviation
        return begun[0]
    matches = difflib.get_close_matches(tidy, known, n=1, cutoff=0.65)
    return matches[0] if matches else None


def did_you_mean(written: str, candidates: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing."""
    guess = closest(written, candidates)
    return f'; did you mean "{guess}"?' if guess else ""
