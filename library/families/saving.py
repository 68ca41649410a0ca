"""Writing a whole model, in any form, whatever form it came in. Nothing is fetched for it."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from library.families.objective import PREDICTION_TYPES
from library.families.saving_file import Model, save_file
from library.families.saving_folder import FolderFacts, save_folder
from library.families.source import Layout

if TYPE_CHECKING:
    from library.families.base import Objective


def save_model(
    model: Model,
    facts: FolderFacts,
    path: Path,
    layout: Layout,
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
) -> None:
    """What `library.families.base.Family.save` promises."""
    if layout in ("safetensors", "ckpt"):
        save_file(model, path, layout == "ckpt", dtype, metadata)
    else:
        save_folder(model, path, layout == "diffusers_safetensors", dtype, facts)


def schedule_facts(objective: Objective, zero_terminal_snr: bool) -> dict[str, Any]:
    """What a training decides of scheduler_config.json."""
    facts: dict[str, Any] = {"prediction_type": PREDICTION_TYPES[objective]}
    if zero_terminal_snr and objective == "v":  # one that predicts noise cannot begin where all is noise
        facts |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return facts
