"""From what the user wrote to a folder or file on this machine; a Hugging Face model id is fetched into the hub's cache."""
from __future__ import annotations

import re
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from library.checkpoint.hub import reason_of
from library.errors import UserError
from library.families.diffusers_folder import PART_NAMES, weight_files
from library.families.weight_files import WEIGHT_SUFFIXES

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DESCRIPTIONS = ["model_index.json", "config.json", "*/*.json", "*/*.txt"]
WEIGHTS = ("*.safetensors", "*.fp16.safetensors", "*.bin", "*.fp16.bin")  # the first kind that the hub has is fetched


def locate(name: str, option: str) -> Path:
    """The folder or file that `option` names. UserError with the hub's own words if neither this machine nor the hub has it."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not HUB_ID.fullmatch(name) or path.suffix.lower() in WEIGHT_SUFFIXES:
        raise UserError(f"{option}: {name}: no such file or folder{_likely(path)}")
    return _fetch(name, option)


def _fetch(model_id: str, option: str) -> Path:
    """The folder of the hub's cache that holds the model. Descriptions come first: they say which weights are wanted."""
    folder = _download(model_id, option, DESCRIPTIONS)
    prefixes = [f"{part}/" for part in PART_NAMES if (folder / part / "config.json").is_file()] or [""]  # a bare VAE
    for pattern in WEIGHTS:
        missing = [prefix for prefix in prefixes if not weight_files(folder / prefix)]
        if missing:
            ignored = ["*.non_ema.*"] if ".fp16" in pattern else ["*.fp16.*", "*.fp16-*", "*.non_ema.*"]
            _download(model_id, option, [prefix + pattern for prefix in missing], ignored)
    return folder


def _download(model_id: str, option: str, patterns: list[str], ignored: list[str] | None = None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model_id, allow_patterns=patterns, ignore_patterns=ignored))
    except Exception as error:  # the hub's own errors, and those of whichever network library its version uses
        said = f"no such file or folder here{_likely(Path(model_id))}, and the Hugging Face hub says: {reason_of(error)}"
        raise UserError(f"{option}: {model_id}: {said}") from error


def _likely(path: Path) -> str:
    """What beside it has almost this name, as a question."""
    beside: list[str] = []
    with suppress(OSError):  # there is no such folder, or it is nobody's to list
        beside = [found.name for found in path.parent.iterdir()]
    likely = get_close_matches(path.name, beside, n=1, cutoff=0.7)
    return f' (did you mean "{(path.parent / likely[0]).as_posix()}"?)' if likely else ""
