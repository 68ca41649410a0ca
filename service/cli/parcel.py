"""The zip file that a training is sent as: its configuration and the pictures of two folders."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.errors import UserError

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")
CAPTION_ENDINGS = (".txt", ".caption")
CONFIG_FILE, LIST_FILE = "finetune_config.yaml", "dataset.json"
INSTANCE, CLASSES = "dataset/trainingData", "dataset/classData"
JUNK = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Pictures:
    """What a folder has for a training: by the name it gets in the zip. `others` are left at home."""

    files: dict[str, Path]
    captions: dict[str, Path]
    others: list[str]


def pictures_in(folder: Path, option: str) -> Pictures:
    """The pictures that lie in a folder itself, and the captions beside them; UserError if there is none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{option}: {folder} {what}: name a folder of pictures ({', '.join(PICTURE_ENDINGS)})")
    files: dict[str, Path] = {}
    beside: list[Path] = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name.lower() in JUNK:
            continue
        if path.suffix.lower() in PICTURE_ENDINGS:
            files[_name(path)] = path
        else:
            beside.append(path)
    if not files:
        raise UserError(f"{option}: there are no pictures in {folder}: put some there ({', '.join(PICTURE_ENDINGS)})")
    stems = {Path(name).stem for name in files}
    captions = {
        _name(path): path for path in beside if path.suffix.lower() in CAPTION_ENDINGS and Path(_name(path)).stem in stems
    }
    return Pictures(files, captions, [path.name for path in beside if path not in captions.values()])


def pack(config: Mapping[str, Any], instance: Pictures, classes: Pictures | None, destination: Path) -> None:
    """Write the zip. Pictures are stored as they are: they do not shrink."""
    import yaml

    listed: dict[str, Any] = {"num_images": len(instance.files), "image_names": list(instance.files)}
    if classes is not None:
        listed["class_image_names"] = list(classes.files)
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        plain = json.loads(json.dumps(config, default=str))  # each value in full: the service takes no references to others
        archive.writestr(CONFIG_FILE, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        archive.writestr(LIST_FILE, json.dumps(listed, ensure_ascii=False))
        for folder, pictures in ((INSTANCE, instance), (CLASSES, classes)):
            for name, path in {**pictures.files, **pictures.captions}.items() if pictures else ():
                archive.write(path, f"{folder}/{name}")


def _name(path: Path) -> str:
    """As the service takes it: one spelling of each letter (macOS has another)."""
    return unicodedata.normalize("NFC", path.name)
