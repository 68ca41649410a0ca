"""Runs scripts in processes forked from one that has imported all but torch: requests on stdin, exit codes on stdout.

python fork_server.py
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    import library.train.app  # noqa: F401
    from tests.as_script import become

    assert "torch" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
