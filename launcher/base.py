"""Where things are, and how the launcher speaks."""
from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
GIB = 2**30


class SetupError(Exception):
    """Something on this machine stands in the way; the message ends with the remedy."""


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def venv_python() -> Path:
    """The Python of the environment."""
    return python_of(VENV)


def say(text: str) -> None:
    print(f"[launch] {text}", flush=True)
