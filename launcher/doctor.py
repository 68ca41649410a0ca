"""Prints what a maintainer would ask for, and what is wrong with its remedy."""
from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from launcher.base import GIB, ROOT, VENV, SetupError, venv_python
from launcher.environment import check_python, read_mark, wanted_setup
from launcher.torch_build import Gpu, choose_build, find_gpu

ROOM_TO_SAVE = 2 * GIB
PACKAGES = ("torch", "accelerate", "diffusers", "transformers", "safetensors", "huggingface_hub", "numpy")
OPTIONAL = ("bitsandbytes", "xformers", "lycoris", "prodigyopt", "dadaptation", "schedulefree", "lion_pytorch", "tensorboard")
SHIPPED = ("assets/base", "assets/frog", "examples", "library", "train_network.py")

PROBE = """
import importlib, importlib.metadata, importlib.util, json, sys
packages, optional = (names.split(",") for names in sys.argv[1:])
def state_of(name):
    if importlib.util.find_spec(name) is None: return "absent"
    try: importlib.import_module(name)
    except BaseException as error: return "broken: " + (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
    return "there"
import psutil, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "versions": {name: importlib.metadata.version(name) for name in packages},
    "optional": {name: state_of(name) for name in optional},
    "cuda": torch.version.cuda or torch.version.hip, "metal": torch.backends.mps.is_available(),
    "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor}" for gpu in gpus],
    "bf16": bool(gpus) and torch.cuda.is_bf16_supported(including_emulation=False),
    "memory_gib": round(psutil.virtual_memory().total / 2**30),
    "python": sys.version.split()[0],
}))
"""


def doctor() -> int:
    """Print the report. 1 if something is wrong, else 0."""
    problems = [*_examine_machine(), *_examine_project(), *_examine_environment()]
    for problem in problems:
        print(f"PROBLEM        {problem}")
    print(f"{len(problems)} to mend" if problems else "all is well")
    return 1 if problems else 0


def _row(name: str, value: str) -> None:
    print(f"{name:<14} {value}")


def _examine_machine() -> list[str]:
    problems = []
    _row("system", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPU threads")
    _row("python", f"{platform.python_version()} at {sys.executable}")
    try:
        check_python(sys.version_info[:2])
    except SetupError as error:
        problems.append(str(error))
    free = shutil.disk_usage(ROOT).free
    _row("disk", f"{free / GIB:.1f} GiB free at {ROOT}")
    if free < ROOM_TO_SAVE:
        problems.append("less than 2 GiB are free, a training could not save its files: free some space")
    if not os.access(ROOT, os.W_OK):
        problems.append(f"{ROOT} cannot be written: move the project to a folder of your own")
    return problems


def _examine_project() -> list[str]:
    version = (ROOT / "library/__init__.py").read_text(encoding="utf-8").split('__version__ = "')[-1].split('"')[0]
    commit = ""
    if shutil.which("git"):
        answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        commit = f", commit {answer.stdout.strip()}" if answer.returncode == 0 else ""
    _row("tadpole", version + commit)
    missing = [name for name in SHIPPED if not (ROOT / name).exists()]
    return [f"files of the project are missing ({', '.join(missing)}): download or clone it again"] if missing else []


def _examine_environment() -> list[str]:
    gpu = find_gpu()
    _row("NVIDIA driver", f"{gpu.driver}, compute capability {gpu.capability or 'unknown'}" if gpu else "none")
    installed = read_mark()
    if not installed:
        return ["the environment is not set up: python launch.py setup"]
    result = subprocess.run(
        [str(venv_python()), "-c", PROBE, ",".join(PACKAGES), ",".join(OPTIONAL)], capture_output=True, text=True
    )
    if result.returncode:
        line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return [f"the environment is broken ({line}): delete {VENV}, then python launch.py setup"]
    facts = json.loads(result.stdout.strip().splitlines()[-1])
    _print_facts(facts, installed)
    outdated = installed != wanted_setup(installed["build"], installed["dev"], installed.get("service", False))
    stale = ["the environment is older than the project: python launch.py setup"] if outdated else []
    return [*stale, *find_problems(facts, gpu)]


def _print_facts(facts: dict[str, Any], installed: dict[str, Any]) -> None:
    _row("environment", f"{VENV}, Python {facts['python']}, torch build {installed['build']}")
    _row("memory", f"{facts['memory_gib']} GiB")
    _row("packages", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    _row("CUDA in torch", facts["cuda"] or "none")
    _row("GPUs", "; ".join(facts["gpus"]) or ("Apple Metal" if facts["metal"] else "none"))
    if facts["gpus"]:
        _row("bf16", "yes" if facts["bf16"] else "no")
    _row("optional", ", ".join(f"{name} ({state})" if state != "there" else name for name, state in facts["optional"].items()))


def find_problems(facts: dict[str, Any], gpu: Gpu | None) -> list[str]:
    """What is wrong with what the environment says of itself."""
    problems = [
        f"{name} is {state}: reinstall it, {venv_python()} -m pip install --force-reinstall --no-deps {name.replace('_', '-')}"
        for name, state in facts["optional"].items()
        if state.startswith("broken")
    ]
    if gpu and not facts["gpus"]:
        build, reason = choose_build(platform.system(), platform.machine(), gpu)
        remedy = reason if build == "cpu" else f"python launch.py setup --torch {build}"
        problems.append(f"there is an NVIDIA GPU that torch cannot use: {remedy}")
    return problems
