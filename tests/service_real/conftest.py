"""These tests need servers and programs that `.ci/real` installs. They run when they are asked for: `pytest tests/service_real`."""
from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """A plain `pytest` passes by; where they run, a missing program is a failure, not a skip."""
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(HERE in (path, *path.parents) for path in named) else True
