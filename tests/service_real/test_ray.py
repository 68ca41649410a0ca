"""Jobs on a real Ray of one node. Ray's Python is that of RAY_PYTHON, or of these tests: `pip install "ray[default]"`."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_real.slurm_cluster import free_ports

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("RAY_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that is there for this module only."""
    port, dashboard = free_ports(2)
    ray = str(Path(PYTHON).with_name("ray"))
    assert Path(ray).exists(), f'no {ray}: pip install "ray[default]"'
    options = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2", "--disable-usage-stats"]
    started = subprocess.run([ray, "start", *options], capture_output=True, text=True, timeout=300)
    assert started.returncode == 0, started.stdout + started.stderr
    yield f"http://127.0.0.1:{dashboard}"
    subprocess.run([ray, "stop", "--grace-period=30"], capture_output=True, timeout=120)


def test_a_job_runs_is_found_again_and_is_canceled(address: str, tmp_path: Path) -> None:
    """In Ray's own Python, which need not have what these tests have."""
    done = subprocess.run(
        [PYTHON, "-m", "tests.service_real.ray_jobs", address, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "known before": False,
        "ended": ["ended", 3, "it failed with exit code 3"],
        "log": "out\nerr\n",
        "ray says": ["FAILED", 3],
        "submitted again": ["ended", 3],
        "without exit.json": ["ended", 3, "Ray: FAILED"],
        "canceled": ["ended", 143, "canceled"],
        "saved": True,
        "away": "nothing",
    }
