"""modelspec.* metadata (specification 1.0.1): what a trained file is, for programs that list models."""
from __future__ import annotations

import base64
import mimetypes
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library import __version__

if TYPE_CHECKING:
    from library.checkpoint.metadata import TrainingFacts
    from library.config.options import NoiseOptions

SPECIFICATION = "1.0.1"
ORIGINAL = "https://github.com/Stability-AI/generative-models"
TITLES = {"lora": "LoRA", "textual-inversion": "TextualInversion", None: "Checkpoint"}  # of untitled and unnamed files, by artefact
DESCRIPTIVE = (
    "author", "description", "license", "tags", "usage_hint", "merged_from", "trigger_phrase", "preprocessor",
    "is_negative_embedding",
)  # fmt: skip
LEAST_TIMESTEP, TIMESTEPS_END = 0, 1000  # where the settings name none


def modelspec(facts: TrainingFacts, saved_at: float) -> dict[str, str]:
    """The fields of a file saved at this time (seconds since 1970); those without a value are left out."""
    settings, options = facts.settings, facts.settings.metadata
    width, height = settings.data.resolution or facts.default_resolution
    untitled = f"{TITLES[facts.artefact]}@{int(saved_at)}"
    fields: dict[str, Any] = {
        "sai_model_spec": SPECIFICATION,
        "architecture": f"{facts.architecture}/{facts.artefact}" if facts.artefact else facts.architecture,
        "implementation": _implementation(facts),
        "title": options.metadata_title or settings.saving.output_name or untitled,
        "resolution": f"{width}x{height}",
        "date": datetime.fromtimestamp(int(saved_at)).isoformat(),
        "prediction_type": facts.prediction_type,
        "timestep_range": _timestep_range(settings.noise),
        "encoder_layer": settings.model.clip_skip,
        "implementation_version": f"tadpole/{__version__}",
        "thumbnail": None if options.metadata_thumbnail is None else thumbnail_url(options.metadata_thumbnail),
        **{name: getattr(options, f"metadata_{name}") for name in DESCRIPTIVE},
    }
    return {f"modelspec.{name}": str(value) for name, value in fields.items() if value is not None}


def thumbnail_url(thumbnail: str) -> str | None:
    """A picture's file as a data: URL; such a URL stays as it is; None if there is no such file."""
    if thumbnail.startswith("data:"):
        return thumbnail
    path = Path(thumbnail)
    if not path.is_file():
        return None
    kind = mimetypes.guess_type(path.name)[0] or "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _implementation(facts: TrainingFacts) -> str:
    """Networks of SD 1.x and 2.x fit the names of Diffusers; the other files have those of the original."""
    is_sdxl = facts.architecture.startswith("stable-diffusion-xl")
    return "diffusers" if facts.artefact == "lora" and not is_sdxl else ORIGINAL


def _timestep_range(noise: NoiseOptions) -> str | None:
    if noise.min_timestep is None and noise.max_timestep is None:
        return None
    least = LEAST_TIMESTEP if noise.min_timestep is None else noise.min_timestep
    end = TIMESTEPS_END if noise.max_timestep is None else noise.max_timestep
    return f"{least},{end}"
