"""The file that holds one image's latents: its name, its keys, and the fingerprint that tells whether it still fits."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.data.entry_file import UNREADABLE, EntryKind

VERSION = 1  # of how latents are made; raised when they come out differently for the same settings
LATENT_KEYS = ("latents", "latents_mean", "latents_std")
FLIPPED_KEYS = tuple(f"{key}_flipped" for key in LATENT_KEYS)
OWN_KEYS = {*LATENT_KEYS, *FLIPPED_KEYS, "original_size", "crop_ltrb", "alpha_mask", "fingerprint"}
KIND = EntryKind(
    "latent cache",
    "cache_latents",
    {
        "version": "made by another version",
        "file": "made from another image",
        "bytes": "made before the image changed",
        "modified_ns": "made before the image changed",
        "bucket": "made for another resolution or bucket",
        "resized": "made for another resolution or bucket",
        "interpolation": "made with another resize_interpolation",
        "alpha_mask": "made with another alpha_mask",
        "mask": "made with another mask",
        "vae": "made with another VAE",
    },
)


@dataclass(frozen=True)
class Latents:
    """What is cached of one image: the posterior [C, h, w] float32 and, if its pixels are weighted, the weights [H, W] uint8."""

    mean: np.ndarray
    std: np.ndarray
    mask: np.ndarray | None = None


Versions = dict[bool, Latents]  # of one image, by whether it is mirrored


def entry_path(image: Path, size: tuple[int, int], suffix: str, distinction: str = "") -> Path:
    """`<stem>_<W>x<H>_sd.npz` beside the image; `distinction` keeps apart what would share this name within one run."""
    width, height = size
    return image.with_name(f"{image.stem}_{width:04d}x{height:04d}{distinction}{suffix}.npz")


def fingerprint_of(image: Path, recipe: dict[str, Any]) -> str:
    """All that latents depend on, as readable JSON: the image file as it is now, and the recipe by which they are made."""
    facts = {"version": VERSION, **file_facts(image), **recipe}
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)


def file_facts(path: Path) -> dict[str, str | int]:
    """What tells whether a file is still the same one."""
    stat = path.stat()
    return {"file": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def why_unusable(path: Path, fingerprint: str, flipped: bool, masked: bool) -> str | None:
    """None if the entry can be used, else what is wrong with it."""
    keys = {*LATENT_KEYS, *(FLIPPED_KEYS if flipped else ()), *(("alpha_mask",) if masked else ())}
    return KIND.why_unusable(path, fingerprint, keys, lacking="without the flipped version or the mask")


def write_entry(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an entry, whole or not at all. What other tools keep in the file under keys of their own stays."""
    KIND.write(path, {**_foreign_arrays(path), **arrays})


def _foreign_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as entry:
            return {key: entry[key] for key in entry.files if key not in OWN_KEYS}
    except UNREADABLE:  # there is none, or it is damaged
        return {}


def read_entry(path: Path, flipped: bool, masked: bool, fingerprint_digest: int | None) -> Latents:
    """The latents of one image. `fingerprint_digest`: of what the entry must still be made from; None trusts what is there."""
    with KIND.opened(path, fingerprint_digest) as entry:
        mean, std = _posterior(entry, "_flipped" if flipped else "")
        mask = np.rint(entry["alpha_mask"] * 255).astype(np.uint8) if masked else None
    return Latents(mean, std, mask[:, ::-1] if mask is not None and flipped else mask)


def _posterior(entry: Any, ending: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation; where another tool stored one sample only, that sample and 0."""
    if f"latents_mean{ending}" in entry.files:
        return entry[f"latents_mean{ending}"], entry[f"latents_std{ending}"]
    sample = entry[f"latents{ending}"].astype(np.float32)
    return sample, np.zeros_like(sample)
