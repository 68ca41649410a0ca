"""Where the tools' models run."""
from __future__ import annotations

import torch


def best_device() -> str:
    """The GPU, if there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
