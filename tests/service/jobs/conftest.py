"""What several tests of jobs begin with: a service that works on them, and looks for more all the time."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from job_shop import Shop, open_shop

from service.jobs import worker
from service.settings import ServiceSettings


@pytest.fixture
def shop(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    with open_shop(settings) as shop:
        yield shop
