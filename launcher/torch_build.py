"""Which build of torch fits a machine, and the pip command that installs it."""
from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from launcher.base import SetupError, say

TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/"
PYPI = "pypi"  # the build that PyPI has: for CUDA on Linux, for the CPU on Windows, for Metal on macOS
UNKNOWN_CAPABILITY = 8.0  # what to assume of a GPU whose driver does not say


class CudaBuild(NamedTuple):
    """A build for NVIDIA GPUs: the oldest driver that runs it, and the GPUs that it has code for."""

    name: str
    oldest_driver: tuple[int, int]
    least_capability: float
    below_capability: float


# Newest first. https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ and RELEASE.md of https://github.com/pytorch/pytorch
CUDA_BUILDS = (CudaBuild("cu130", (580, 0), 7.5, 99.0), CudaBuild("cu126", (525, 60), 5.0, 10.0))


class Gpu(NamedTuple):
    """What nvidia-smi says; of several GPUs the least capable of those that one build serves together with the best."""

    driver: str
    capability: float | None  # None: the driver is too old to say


def find_gpu() -> Gpu | None:
    """The NVIDIA GPU of this machine, or None."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return None
    rows = _ask_gpu(program, "driver_version,compute_cap") or _ask_gpu(program, "driver_version")  # old drivers know only that
    if not rows:
        return None
    capabilities = [float(row[1]) for row in rows if len(row) > 1 and re.fullmatch(r"\d+\.\d+", row[1])]
    builds = _builds_for(max(capabilities, default=UNKNOWN_CAPABILITY))
    served = [each for each in capabilities if any(build in builds for build in _builds_for(each))]
    return Gpu(rows[0][0], min(served or capabilities, default=None))


def _ask_gpu(program: str, query: str) -> list[list[str]]:
    """A row of answers for each GPU; none where the driver does not answer."""
    command = [program, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    return [[item.strip() for item in line.split(",")] for line in lines if line.strip()]


def choose_build(system: str, machine: str, gpu: Gpu | None, asked: str | None = None) -> tuple[str, str]:
    """The build for a machine, and why. `system` and `machine` are as Python's platform module names them."""
    if system == "Darwin" and machine != "arm64":
        raise SetupError(f"torch {TORCH} is not built for Macs with Intel processors: use Apple silicon, Linux or Windows")
    if system == "Darwin":
        return PYPI, "macOS has one build, which uses Metal"
    if asked:
        return asked, "asked for by --torch"
    if gpu is None:
        return "cpu", "no NVIDIA GPU was found"
    return _choose_cuda_build(gpu)


def _choose_cuda_build(gpu: Gpu) -> tuple[str, str]:
    capability = UNKNOWN_CAPABILITY if gpu.capability is None else gpu.capability
    fitting = _builds_for(capability)
    if not fitting:
        return "cpu", f"this torch has no code for a GPU of compute capability {capability}"
    driver = tuple(int(part) for part in re.findall(r"\d+", gpu.driver)[:2])
    for build in fitting:
        if driver >= build.oldest_driver:
            return build.name, f"NVIDIA driver {gpu.driver}, compute capability {gpu.capability or 'unknown'}"
    least = fitting[-1]
    return "cpu", (
        f"NVIDIA driver {gpu.driver} is too old: update it to {least.oldest_driver[0]} or newer, "
        f"then python launch.py setup --torch {least.name}"
    )


def _builds_for(capability: float) -> list[CudaBuild]:
    """The builds that have code for such a GPU, the newest first."""
    return [build for build in CUDA_BUILDS if build.least_capability <= capability < build.below_capability]


def torch_command(python: Path, build: str) -> list[str]:
    """The pip command that installs this build."""
    index = [] if build == PYPI else ["--index-url", TORCH_INDEX + build]
    return [str(python), "-m", "pip", "install", f"torch=={TORCH}", *index]


def obtainable(build: str, system: str) -> str:
    """The build itself, or PyPI's where PyTorch's own index cannot be reached."""
    if build == PYPI or index_answers(build):
        return build
    say(f"{TORCH_INDEX}{build} cannot be reached: taking the build that the package index offers")
    if build != "cpu" and system == "Windows":
        say(f"that one cannot use the GPU; once PyTorch's index can be reached: python launch.py setup --torch {build}")
    return PYPI


def index_answers(build: str, timeout_s: float = 10.0) -> bool:
    """Whether PyTorch's index can be reached and has this build. Heeds HTTPS_PROXY, as pip does."""
    request = urllib.request.Request(f"{TORCH_INDEX}{build}/torch/", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # somebody is there, and pip may know a certificate that we do not
    except OSError:
        return False
    return True
