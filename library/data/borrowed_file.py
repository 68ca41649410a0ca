"""Latents that another tool cached beside an image: where they may be, whether they fit the image, and reading them."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.data.cache_file import Latents, Versions, entry_path
from library.data.entry_file import UNREADABLE
from library.data.image_files import EXTENSIONS, decode, opened, orientation
from library.data.records import ImageRecord

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings

Shape = tuple[int, int, int]  # of latents: channels, height, width

# Some scripts of sd-scripts write latents of Stable Diffusion 1.x and 2.x under the name of those of SDXL: the content decides.
_OTHER_SUFFIX = {"_sd": "_sdxl"}
_FLIP = "_flip"  # the oldest caches hold the mirror image in a file of its own


class Unfit(Exception):
    """Why a file cannot be used."""


def possible_files(record: ImageRecord, suffix: str) -> list[Path]:
    """Where an image's latents may be: under the name of ours, under that of another family, and in `<stem>.npz`."""
    image = Path(record.path)
    suffixes = [suffix, *([_OTHER_SUFFIX[suffix]] if suffix in _OTHER_SUFFIX else [])]
    return [*(entry_path(image, record.size, each) for each in suffixes), image.with_suffix(".npz")]


def is_anothers(path: Path) -> bool:
    """Whether there is a file, and it is not ours."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            return "fingerprint" not in entry.files
    except FileNotFoundError:
        return False
    except UNREADABLE:
        return True


def why_unfit(path: Path, record: ImageRecord, subset: SubsetSettings, shape: Shape) -> str | None:
    """Why a file cannot stand for the image; None if nothing speaks against it but perhaps the VAE.

    Reads all of it, for other tools do not write files in one piece. Raises BadImage if the image itself cannot be opened.
    """
    try:
        _check_origin(path, record, subset.flip_aug)
        _check_content(read_versions(path, subset.flip_aug, subset.alpha_mask), record, shape)
    except Unfit as reason:
        return str(reason)
    except UNREADABLE:
        return "damaged"
    return _read_differently(record.path, subset.alpha_mask)


def _check_origin(path: Path, record: ImageRecord, flipped: bool) -> None:
    """Whether the file was made from this image, as far as it says so."""
    image = Path(record.path)
    if record.mask is not None:
        raise Unfit("without the mask")  # of another folder, which other tools do not keep
    if path.stem.endswith(_FLIP) and path.with_name(f"{path.stem.removesuffix(_FLIP)}.npz").exists():
        raise Unfit("perhaps of the mirror image of another")
    files = {_place_of(path, version)[0] for version in ((False, True) if flipped else (False,))}
    if any(file.stat().st_mtime_ns < image.stat().st_mtime_ns for file in files):
        raise Unfit("older than the image")
    for file in files:
        with np.load(file, allow_pickle=False) as entry:
            if "fingerprint" in entry.files:
                raise Unfit("but written by Tadpole a moment ago")
            if "latents" not in entry.files or "original_size" not in entry.files:
                raise Unfit("without latents or the size of their image")
            if tuple(entry["original_size"].tolist()) != record.size:
                raise Unfit("made from an image of another size")


def _check_content(versions: Versions, record: ImageRecord, shape: Shape) -> None:
    """Whether the latents are those of the image's bucket, and numbers."""
    width, height = record.bucket
    for latents in versions.values():
        if latents.mean.shape != shape:
            raise Unfit("made for another resolution or bucket")
        if latents.mask is not None and latents.mask.shape != (height, width):
            raise Unfit("with a mask of another size")
        if not np.isfinite(latents.mean).all():
            raise Unfit("with numbers that are not finite")


def read_versions(path: Path, flipped: bool, masked: bool) -> Versions:
    """The latents of an image and, if asked for, of its mirror image."""
    return {version: read_sample(path, version, masked) for version in ((False, True) if flipped else (False,))}


def read_sample(path: Path, flipped: bool, masked: bool) -> Latents:
    """The one sample that another tool keeps of an image, or of its mirror image: as a posterior without any deviation."""
    file, key = _place_of(path, flipped)
    with np.load(file, allow_pickle=False) as entry:
        sample = entry[key].astype(np.float32)
    mask = _read_mask(path) if masked else None
    return Latents(sample, np.zeros_like(sample), mask[:, ::-1] if mask is not None and flipped else mask)


def _read_mask(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as entry:
        if "alpha_mask" not in entry.files:
            raise Unfit("without the mask")
        return np.rint(entry["alpha_mask"] * 255).astype(np.uint8)


def _place_of(path: Path, flipped: bool) -> tuple[Path, str]:
    """The file and the key of a version's latents."""
    if not flipped:
        return path, "latents"
    with np.load(path, allow_pickle=False) as entry:
        if "latents_flipped" in entry.files:
            return path, "latents_flipped"
    mirrored = path.with_name(f"{path.stem}{_FLIP}.npz")
    if not mirrored.exists() or any(mirrored.with_suffix(extension).exists() for extension in EXTENSIONS):
        raise Unfit("without the flipped version")  # in the second case that file is of an image whose name ends so
    return mirrored, "latents"


def _read_differently(image: str, keeps_alpha: bool) -> str | None:
    """How the other tool sees an image that we see in another way; its latents are then not those of our pixels."""
    with opened(image) as (file, picture):
        if orientation(picture, file) != 1:
            return "of an image that the other tool did not turn upright"
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            return "of an image of more than 8 bits, which the other tool clipped"
        if keeps_alpha or not picture.has_transparency_data:
            return None
        decode(file, picture)
        opaque = picture.convert("RGBA").getchannel("A").getextrema()[0] == 255
        return None if opaque else "of a transparent image, which the other tool took for an opaque one"
