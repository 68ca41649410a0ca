"""The tests of the service once more, on a real PostgreSQL instead of SQLite."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_real.postgresql_server import Server, postgresql_server
from tests.service_real.real_service import wait_for

ROOT = Path(__file__).resolve().parents[2]
SUITE_SECONDS = 1500


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql_server() as server:
        yield server


@pytest.mark.timeout(SUITE_SECONDS + 60)
def test_the_service_on_postgresql(server: Server) -> None:
    environment = {**os.environ, "TADPOLE_TEST_DATABASE_URL": server.url}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(os.cpu_count() or 1), "tests/service"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=SUITE_SECONDS)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    wait_for(lambda: server.commits() > 1000, 30, "the server to have counted what it did")  # its statistics come a little later
