"""Models from this machine or from the Hugging Face hub (HF_ENDPOINT names another)."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from library.checkpoint.hub import reason_of
from library.errors import UserError
from library.families.locate import HUB_ID

_DESCRIPTIONS = ("*.json", "*.txt")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the first kind that the hub has is fetched


def model_folder(name: str, flag: str) -> Path:
    """The folder of the transformers model that `flag` names: a folder, or a hub id that is fetched into the hub's cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(name):
        raise UserError(f'{flag}: "{name}" is neither a folder nor a Hugging Face model id such as owner/name')
    for weights in _WEIGHTS:
        folder = fetch(name, flag, [*_DESCRIPTIONS, weights])
        if any(folder.glob(weights)):
            break
    return folder


def fetch(model_id: str, flag: str, patterns: Sequence[str], folder: Path | None = None, force: bool = False) -> Path:
    """Download files of a hub model, into `folder` or the hub's cache; UserError with the hub's own words."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        if force:
            HfApi().model_info(model_id)  # where it cannot be reached, snapshot_download is content with what is there
        return Path(snapshot_download(model_id, allow_patterns=list(patterns), local_dir=folder, force_download=force))
    except Exception as error:  # the hub's own errors, and those of whichever network library its version uses
        raise UserError(f"{flag}: {model_id} cannot be downloaded: {reason_of(error)}") from error
