"""metadata_cache.json beside the pictures (`cache_info`): captions and sizes, each used while the files are as they were."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from library.checkpoint.files import write_text
from library.data.folders import file_name, within
from library.data.records import Size

NAME = "metadata_cache.json"
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Known(NamedTuple):
    """What the index knows of an image; None: it must be read."""

    size: Size | None = None
    lines: list[str] | None = None  # of the caption file


class Stamps(NamedTuple):
    """What tells whether an image and its caption file are still the same. None: it is gone."""

    image: str | None
    caption_file: str | None  # "": it has none


class FolderIndex:
    """The index of one folder as it was found, and as it is to be written.

    Other tools read `caption` and `resolution` of it, and may write it too: without the stamps, which are ours, nothing in it is
    believed.
    """

    def __init__(self, folder: Path):
        self._file = folder / NAME
        self._start = within(folder, [""])[0]
        self._found: dict[str, Any] = {}  # by file name, for the folder may have been moved; what is looked up goes
        self._stamps: dict[str, Stamps] = {}
        self._believed: dict[str, tuple[Size, str]] = {}  # size and caption of images whose entry holds
        with suppress(OSError, ValueError, AttributeError):  # there is none, or it is damaged, or something else
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._found = {file_name(path): entry for path, entry in content.items() if isinstance(entry, dict)}

    def look_up(self, image: str, caption_file: str | None) -> Known:
        """What is known of an image, as far as its file and its caption file are the same as when that was written."""
        stamps = Stamps(self._stamp(image), self._stamp(caption_file) if caption_file else "")
        self._stamps[image] = stamps
        entry = self._found.pop(image, {})
        size, caption = entry.get("resolution"), entry.get("caption")
        size = (size[0], size[1]) if stamps.image and entry.get("image") == stamps.image and _is_size(size) else None
        if stamps.caption_file is None or entry.get("caption_file") != stamps.caption_file or not isinstance(caption, str):
            return Known(size)
        if size:
            self._believed[image] = size, caption
        return Known(size, caption.split("\n") if caption_file else None)

    def write(self, sizes: Mapping[str, Size], captions: Mapping[str, str]) -> str | None:
        """Keep what is known now of the images in `sizes`, by file name; says what went wrong, which is no harm."""
        if not self._found and self._believed == {image: (size, captions[image]) for image, size in sizes.items()}:
            return None
        lines = [self._entry(image, size, captions[image]) for image, size in sizes.items()]
        try:
            write_text(self._file, "{\n" + ",\n".join(lines) + "\n}\n")
        except OSError as error:
            return f"{self._file} cannot be written ({error.strerror}): the next start is as slow as this one"
        return None

    def _entry(self, image: str, size: Size, caption: str) -> str:
        content = {"caption": caption, "resolution": size, **self._stamps[image]._asdict()}
        return f"{_as_json(self._start + image)}:{_as_json(content)}"

    def _stamp(self, name: str) -> str | None:
        """Name, bytes and time of the last change in nanoseconds."""
        try:
            stat = os.stat(self._start + name)  # noqa: PTH116  (a Path takes longer than the look at the disk)
        except OSError:
            return None
        return f"{stat.st_size} {stat.st_mtime_ns} {name}"


def _is_size(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    width, height = value
    return isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
