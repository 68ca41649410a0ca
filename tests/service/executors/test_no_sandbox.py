"""Where bubblewrap is not there, or does not work: said plainly, and refused where it is required."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.executors import sandbox
from tests.service.executors.jobs import local, over, shell

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the jobs are scripts of the shell")


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bubblewrap that fails as it does where the kernel forbids it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n", encoding="utf-8")
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    sandbox.problem.cache_clear()
    yield
    sandbox.problem.cache_clear()


@pytest.mark.usefixtures("without")
def test_jobs_run_without_it_and_people_are_told(tmp_path: Path) -> None:
    executor = local(tmp_path, "auto")
    assert executor.statement == (
        "jobs run without a sandbox and can read what the service can read: "
        "bubblewrap does not work here (bwrap: No permissions to create new namespace)"
    )
    assert over(executor, executor.submit(shell(tmp_path, "exit 3"))).exit_code == 3


@pytest.mark.usefixtures("without")
def test_where_it_is_required_no_job_runs_without_it(tmp_path: Path) -> None:
    executor = local(tmp_path, "always")
    status = over(executor, executor.submit(shell(tmp_path, "touch ran")))
    assert status.exit_code == 126
    assert "the sandbox is required: bubblewrap does not work here" in status.reason
    assert not (tmp_path / "job" / "ran").exists()
