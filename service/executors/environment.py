"""The environment of jobs: what they may take over from the service, and what each of them gets. Standard library only."""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from service.executors.base import Spec
from service.executors.processes import HANDLE_VARIABLE

STATUS_FILE = "TADPOLE_STATUS_FILE"  # training processes write their exit codes there: accelerate's launcher loses them
TAKEN_OVER = (  # secrets of the service have other names
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH"),
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE"),
)
TAKEN_OVER_BEGINNINGS = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "UCX_", "FI_", "ROCR_", "HIP_", "HSA_", "OMP_", "MKL_")


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What programs need of the machine: where others are, its language, its GPUs and networks."""
    return {name: value for name, value in environment.items() if name in TAKEN_OVER or name.startswith(TAKEN_OVER_BEGINNINGS)}


def environment_of(spec: Spec, temporary: Path) -> dict[str, str]:
    """All that a job finds in its environment. `temporary` is its /tmp, as it sees it."""
    home = spec.folder / "home"  # caches of libraries
    home.mkdir(parents=True, exist_ok=True)
    own = {"HOME": str(home), "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary), "USERPROFILE": str(home)}
    own |= {STATUS_FILE: str(temporary / "tadpole-status"), HANDLE_VARIABLE: spec.handle, "PYTHONUNBUFFERED": "1"}
    offline = {} if spec.network else {"HF_HUB_OFFLINE": "1"}
    return {**inherited(), **offline, **own, **spec.environment}
