"""Whatever moment a tool is killed at: nothing is lost, nothing is torn, and a second call makes what is missing."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_tools_survive_kills(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.finetune.kills", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    survived = json.loads(done.stdout.splitlines()[-1])
    assert survived == {"tag files": 4, "tags in metadata": 7, "merge": 4, "clean": 2, "latents": 10}
