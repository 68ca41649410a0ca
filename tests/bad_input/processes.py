"""Runs train_network.py as a process of its own, watched: its exit code, what it said, whether it read weights."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.as_script import become
from tests.train.runs import WATCH, process_context

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 300


@dataclass(frozen=True)
class Outcome:
    """What a process left behind."""

    code: int
    said: str  # on stdout
    complained: str  # on stderr
    watched: tuple[str, ...]  # lines of tests/watch/sitecustomize.py

    @property
    def weights_read(self) -> set[str]:
        return {line for line in self.watched if line.startswith("weights")}

    @property
    def imported_torch(self) -> bool:
        return "imported torch" in self.watched


Imported = Literal["nothing", "all but torch", "everything"]


class Processes:
    """Fresh interpreters, or children of one that has imported what is slow, which saves seconds for each."""

    def __init__(self) -> None:
        self._without_torch: subprocess.Popen[str] | None = None

    def run(
        self,
        folder: Path,
        flags: Sequence[str],
        environment: Mapping[str, str] | None = None,
        imported: Imported = "everything",
    ) -> Outcome:
        """`imported`: before the script begins."""
        log = folder / "watched"
        request = {
            "command": [str(ROOT / "train_network.py"), *flags],
            "folder": str(folder),
            "environment": {"TESTS_WATCH_LOG": str(log), "HF_HUB_OFFLINE": "1", **(environment or {})},
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
        }
        if imported == "nothing" or not hasattr(os, "fork"):
            code = _fresh(request)
        else:
            code = _forked(request) if imported == "everything" else self._forked_without_torch(request)
        said, complained = ((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        watched = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        for name in ("stdout", "stderr", "watched"):
            (folder / name).unlink(missing_ok=True)
        return Outcome(code, said, complained, tuple(watched))

    def close(self) -> None:
        if self._without_torch is not None:
            self._without_torch.communicate()  # the end of its input ends it

    def _forked_without_torch(self, request: dict) -> int:
        if self._without_torch is None:
            command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
            self._without_torch = subprocess.Popen(
                command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
        server = self._without_torch
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())


def _forked(request: dict) -> int:
    process = process_context().Process(target=become, kwargs=request)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _fresh(request: dict) -> int:
    with Path(request["stdout"]).open("wb") as stdout, Path(request["stderr"]).open("wb") as stderr:
        command = [sys.executable, *request["command"]]
        environment = _environment() | request["environment"]
        return subprocess.run(
            command, cwd=request["folder"], env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            timeout=MOST_SECONDS, check=False,
        ).returncode  # fmt: skip


def _environment() -> dict[str, str]:
    here = {"PYTHONPATH": str(WATCH), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    return {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")} | here
