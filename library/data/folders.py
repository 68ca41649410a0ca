"""What one folder holds: the images that are trained on, the files that may be their captions, and pictures that are left out."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from library.data.image_files import EXTENSIONS
from library.errors import UserError

_OTHER_PICTURES = {".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jfif", ".psd", ".tga", ".svg", ".exr", ".ico"}
_USUAL_ENDINGS = tuple(EXTENSIONS)  # in lower case
_CAPTIONS = (".txt", ".caption")
_REMEDIES = {".avif": "pip install pillow-avif-plugin", ".jxl": "pip install pillow-jxl-plugin"}


@dataclass(frozen=True)
class Folder:
    """File names in one folder; its sub-folders and hidden files do not count."""

    images: list[str]  # sorted
    others: dict[str, str]  # file name by its stem and extension in lower case
    left_out: Counter[str]  # how many pictures of other kinds, by extension


def list_folder(path: Path, where: str) -> Folder:
    """The folder's files, or a UserError that begins with `where`."""
    try:
        with os.scandir(path) as entries:
            names = sorted([entry.name for entry in entries if entry.is_file() or _leads_nowhere(entry)])
    except OSError as error:
        raise UserError(f'{where}: the folder "{path}" cannot be read: {error.strerror}') from error
    folder = Folder([], {}, Counter())
    for name in names:
        if name.startswith("."):
            continue
        if name.endswith(_USUAL_ENDINGS):
            folder.images.append(name)
            continue
        if name.endswith(_CAPTIONS):  # as good as all of the rest; what follows takes ten times as long
            folder.others[name] = name
            continue
        stem, extension = split_name(name)
        kind = extension.lower()
        if kind in EXTENSIONS:
            folder.images.append(name)
        elif kind in _OTHER_PICTURES:
            folder.left_out[kind] += 1
        else:  # sorted: of a.TXT and a.txt the latter comes last and stays
            folder.others[name if kind == extension else stem + kind] = name
    return folder


def within(folder: Path, names: Iterable[str]) -> list[str]:
    """The paths of files in a folder, as str(folder / name) has them."""
    start = str(folder / "_")[:-1]
    return [start + name for name in names]


def file_name(path: str) -> str:
    """The last part of a path."""
    return path[max(path.rfind("/"), path.rfind(os.sep)) + 1 :]


def split_name(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name as Path has them, without the time that making a Path takes."""
    stem, dot, kind = name.rpartition(".")
    return (stem, dot + kind) if stem and kind else (name, "")


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a broken link: it counts as a file, and whoever reads it will say what is wrong."""
    return entry.is_symlink() and not entry.is_dir()


def why_empty(path: Path, folder: Folder) -> str:
    """What to say of a folder without a single image."""
    kinds = " ".join(sorted(EXTENSIONS))
    if folder.left_out:
        return f'the folder "{path}" holds no images of a kind that is read ({kinds}): {describe_left_out(folder)}'
    if any(child.is_dir() for child in path.iterdir()):
        return f'the folder "{path}" holds no images ({kinds}); sub-folders are not searched: name each in a subset of its own'
    return f'the folder "{path}" holds no images ({kinds})'


def same_names(folder: Folder) -> list[tuple[str, str]]:
    """Pairs of images that differ in their extension alone, and so would share a caption."""
    if len({image.rpartition(".")[0] for image in folder.images}) == len(folder.images):
        return []
    by_stem: dict[str, str] = {}
    pairs = []
    for image in folder.images:
        first = by_stem.setdefault(split_name(image)[0], image)
        if first is not image:
            pairs.append((first, image))
    return pairs


def describe_left_out(folder: Folder) -> str:
    """Such as "3 .gif files left out", or "" if there are none."""
    parts = []
    for extension, count in sorted(folder.left_out.items()):
        remedy = f" ({_REMEDIES[extension]})" if extension in _REMEDIES else ""
        parts.append(f"{count} {extension} file{'s' if count > 1 else ''}{remedy}")
    return f"{', '.join(parts)} left out" if parts else ""
