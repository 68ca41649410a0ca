"""The GPUs of this machine as slots that jobs take one after the other."""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

CPU = "cpu"  # slots without a GPU: cpu, cpu-2, ...
SEPARATOR = ","  # between the GPUs of one job, as in CUDA_VISIBLE_DEVICES


@dataclass(frozen=True)
class Devices:
    """All slots, in the order in which they are given out. Which of them are taken is written with the jobs, not here."""

    slots: tuple[str, ...]

    def take(self, taken: Collection[str], count: int = 1) -> str | None:
        """What a job of `count` processes gets (`Spec.device`); None: it has to wait. `taken`: the devices of running jobs."""
        free = self.free(taken)
        return SEPARATOR.join(free[:count]) if len(free) >= count else None

    def free(self, taken: Collection[str]) -> list[str]:
        used = {slot for device in taken for slot in device.split(SEPARATOR)}
        return [slot for slot in self.slots if slot not in used]


def devices_of(wanted: Sequence[str], jobs: int = 0) -> Devices:
    """The slots that the settings name, or all GPUs there are, or one without a GPU; at most `jobs` of them, if that is given.

    Without GPUs, `jobs` says how many run at a time.
    """
    slots = tuple(wanted) or gpus()
    if not slots:
        return Devices((CPU, *(f"{CPU}-{number}" for number in range(2, max(jobs, 1) + 1))))
    return Devices(slots[: jobs or None])


def gpus() -> tuple[str, ...]:
    """The numbers of the GPUs that NVIDIA's or AMD's tools list."""
    return _listed(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]) or _listed(["amd-smi", "list", "--csv"], skip=1)


def visible(device: str | None) -> dict[str, str]:
    """What the environment of a job says, so that it sees its own GPUs and no others. Without a device it sees none."""
    shown = SEPARATOR.join(slot for slot in (device or CPU).split(SEPARATOR) if not is_cpu(slot))
    return {"CUDA_VISIBLE_DEVICES": shown, "HIP_VISIBLE_DEVICES": shown, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def is_cpu(slot: str) -> bool:
    return slot == CPU or slot.startswith(f"{CPU}-")


def _listed(command: list[str], skip: int = 0) -> tuple[str, ...]:
    """The first column of what a program lists; nothing where there is no such program."""
    if shutil.which(command[0]) is None:
        return ()
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = answer.stdout.splitlines()[skip:] if answer.returncode == 0 else []  # without a driver it says so there, too
    return tuple(line.split(",")[0].strip() for line in lines if line.strip())
