"""The sandbox, where it has to be there: a job's limits are those of bubblewrap itself."""
from __future__ import annotations

from service.executors import sandbox
from tests.service.executors.test_sandbox import *  # noqa: F403  the same tests


def test_bubblewrap_works_here() -> None:
    """Without it the others would be skipped."""
    assert sandbox.problem() is None
