"""metadata_cache.json beside the pictures (`cache_info`): captions and sizes, each used while the files are as they were."""
from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from library.checkpoint.files import write_text
from library.data.records import Size

NAME = "metadata_cache.json"


class Known(NamedTuple):
    """What the index knows of an image; None: it must be read."""

    size: Size | None = None
    lines: list[str] | None = None  # of the caption file


class FolderIndex:
    """The index of one folder as it was found, and as it is to be written.

    Other tools read `caption` and `resolution` of it, and may write it too: without the stamps, which are ours, nothing in it is
    believed.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._found: dict[str, Any] = {}  # by file name, for the folder may have been moved
        self._stamps: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, AttributeError):  # there is none, or it is damaged, or something else
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
            self._found = {Path(path).name: entry for path, entry in content.items() if isinstance(entry, dict)}

    def look_up(self, image: str, caption_file: str | None) -> Known:
        """What is known of an image, as far as its file and its caption file are the same as when that was written."""
        stamps = {"image": self._stamp(image), "caption_file": caption_file and [caption_file, self._stamp(caption_file)]}
        self._stamps[image] = stamps
        entry = self._found.get(image, {})
        size, caption = entry.get("resolution"), entry.get("caption")
        same = {name: entry.get(name) == stamp for name, stamp in stamps.items()}
        return Known(
            (size[0], size[1]) if same["image"] and _is_size(size) else None,
            caption.split("\n") if same["caption_file"] and caption_file and isinstance(caption, str) else None,
        )

    def write(self, sizes: Mapping[str, Size], captions: Mapping[str, str]) -> str | None:
        """Keep what is known now of the images in `sizes`, by file name; says what went wrong, which is no harm."""
        entries = {
            image: {"caption": captions[image], "resolution": list(size), **self._stamps[image]} for image, size in sizes.items()
        }
        if entries == self._found:
            return None
        content = {str(self._folder / image): entry for image, entry in entries.items()}
        try:
            write_text(self._folder / NAME, json.dumps(content, ensure_ascii=False, separators=(",", ":")))
        except OSError as error:
            return f"{self._folder / NAME} cannot be written ({error.strerror}): the next start is as slow as this one"
        return None

    def _stamp(self, name: str) -> list[int] | None:
        """Bytes and time of the last change in nanoseconds: what tells whether a file is still the same."""
        try:
            stat = (self._folder / name).stat()
        except OSError:
            return None
        return [stat.st_size, stat.st_mtime_ns]


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value)
