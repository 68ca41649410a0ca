"""The executor that the settings name, and the slots of this machine."""
from __future__ import annotations

from typing import cast

from service.executors.base import Executor, Sandbox
from service.executors.devices import Devices, devices_of
from service.executors.local import LocalExecutor
from service.executors.ray import RayExecutor
from service.executors.slurm import SlurmExecutor
from service.settings import ServiceSettings


def make_executor(settings: ServiceSettings) -> Executor:
    """What it keeps of each run lies in data_dir/runs. UserError where its programs are missing."""
    folder, hidden = settings.data_dir / "runs", (settings.data_dir,)
    sandbox = cast(Sandbox, settings.sandbox)
    if settings.executor == "slurm":
        options = [f"--{option.lstrip('-')}" for option in settings.slurm_options]
        return SlurmExecutor(folder, sandbox, hidden, options, settings.gpus_per_process)
    if settings.executor == "ray":
        return RayExecutor(folder, settings.ray_address, sandbox, hidden, settings.gpus_per_process)
    return LocalExecutor(folder, sandbox, hidden)


def slots_of(settings: ServiceSettings) -> Devices:
    """What jobs take on this machine, where the executor keeps no queue of its own."""
    return devices_of(settings.devices, settings.running_jobs)
