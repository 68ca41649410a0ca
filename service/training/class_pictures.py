"""Class pictures that the trainer drew for one job, kept for the next job of the class: by a key of all that made them.

Each job draws into its own folder, so that two at once disturb nobody. What the cache has is linked into that folder before the training,
and what the training drew is linked into the cache, each under a name of its own, in one step, and never over what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

from service.training.job_folder import JobFolder
from service.training.resolved import ResolvedRequest

# How library/train/class_images.py draws; other ways make other pictures.
DRAWN = {"sampler": "dpmsolver++", "steps": 30, "guidance": 7.5, "clip_skip": None}
PATTERN = "class_image_" + "[0-9]" * 5 + ".png"


def cache_key(resolved: ResolvedRequest) -> str:
    """SHA-256 over what a class picture depends on, but for its number. The files of the model count by name, size and time."""
    request, base = resolved.request, resolved.base
    facts = {
        **DRAWN,
        "model": _fingerprint(base.path),
        "vae": _fingerprint(base.vae_path) if base.vae_path else None,
        "v_parameterization": base.model.v_parameterization,
        "prompt": request.class_prompt,
        "resolution": request.resolution,
        "seed": request.seed,
        "at_once": request.train_batch_size,  # the last bits depend on it
        "mixed_precision": resolved.mixed_precision,
        "no_token_padding": not request.pad_tokens,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()


class ClassPictureCache:
    """A folder of folders, one for each key."""

    def __init__(self, root: Path):
        self.root = root

    def fill(self, resolved: ResolvedRequest, folder: JobFolder) -> int:
        """Before the training: put what is there into the job's folder, no more than the job misses; how many that were."""
        if not resolved.with_prior_preservation:
            return 0
        folder.class_pictures.mkdir(parents=True, exist_ok=True)
        own = {path.name for path in folder.class_pictures.glob("class_image_*.png")}
        missing = resolved.request.num_class_images - folder.count_pictures(folder.class_pictures) - len(own)
        entry = self.root / cache_key(resolved)
        offered = [path for path in sorted(entry.glob(PATTERN)) if path.name not in own][: max(0, missing)]
        if offered:
            os.utime(entry)  # for `shrink`
        return sum(_link(path, folder.class_pictures / path.name) for path in offered)

    def keep(self, resolved: ResolvedRequest, folder: JobFolder) -> int:
        """After the training, however it ended: keep what it drew; how many pictures are new."""
        if not resolved.with_prior_preservation:
            return 0
        drawn = sorted(folder.class_pictures.glob(PATTERN))
        if not drawn:
            return 0
        entry = self.root / cache_key(resolved)
        entry.mkdir(parents=True, exist_ok=True)
        return sum(_link(path, entry / path.name) for path in drawn if not (entry / path.name).exists())

    def shrink(self, most_bytes: int) -> int:
        """Remove the entries that were not used for longest until the rest is no larger; how many went. Jobs keep what they have."""
        entries = sorted((path for path in self.root.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True)
        total, removed = 0, 0
        for entry in entries:
            total += sum(path.stat().st_size for path in entry.iterdir())
            if total > most_bytes:
                shutil.rmtree(entry, ignore_errors=True)
                removed += 1
        return removed


def _link(source: Path, target: Path) -> bool:
    """A picture under one more name, whole or not at all; false if the name is taken or the picture gone."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # another disk, or one without links
        return _copy(source, target)
    return True


def _copy(source: Path, target: Path) -> bool:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")  # jobs are threads
    try:
        shutil.copyfile(source, temporary)
        Path(temporary).replace(target)
    except FileNotFoundError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model's files."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return [(found.relative_to(path.parent).as_posix(), found.stat().st_size, found.stat().st_mtime_ns) for found in files]
