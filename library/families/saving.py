"""Writing a whole model, in any form, whatever form it came in. Nothing is fetched for it."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from library.families.saving_file import Model, save_file
from library.families.saving_folder import FolderFacts, save_folder
from library.families.source import Layout


def save_model(
    model: Model,
    facts: FolderFacts,
    path: Path,
    layout: Layout,
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
    done: tuple[int, int],
) -> None:
    """What `library.families.base.Family.save` promises."""
    if layout in ("safetensors", "ckpt"):
        save_file(model, path, layout == "ckpt", dtype, metadata, done)
    else:
        save_folder(model, path, layout == "diffusers_safetensors", dtype, facts)
