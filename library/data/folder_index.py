"""metadata_cache.json beside the pictures (`cache_info`): captions and sizes, each used while the files are as they were."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from library.checkpoint.files import write_text
from library.data.folder_stats import FolderStats
from library.data.folders import file_name, within
from library.data.records import Size

NAME = "metadata_cache.json"
_MANY_BYTES = 2_000_000  # of an index of some ten thousand images
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


class FolderIndex:
    """The index of one folder as it was found, and as it is to be written.

    Other tools read `caption` and `resolution` of it, and may write it too: without the stamps, which are ours, nothing in it is
    believed. An image's stamp tells whether the image and its caption file are still the same.
    """

    def __init__(self, folder: Path):
        self._file = folder / NAME
        self._start = within(folder, [""])[0]
        self._stats = FolderStats(folder, many=_bytes_of(self._file) > _MANY_BYTES)
        self._stamps: dict[str, str] = {}
        self.sizes: dict[str, Size] = {}  # by the image's file name; what is not in here must be read
        self.captions: dict[str, str] = {}  # of the same images: the lines of the caption file; else what was used instead
        self._holds = True  # whether there is nothing else in the file

    def read(self, caption_files: Mapping[str, str | None]) -> None:
        """Take what still holds. `caption_files`: that of each image, by file name."""
        claims = dict(self._claims())  # first: the files may still be looked at by another process
        self._stamps = {image: self._stamp(image, caption_file) for image, caption_file in caption_files.items()}
        self._stats.forget()
        for image, (size, caption, stamp) in claims.items():
            if stamp == self._stamps.get(image, "") != "":
                self.sizes[image], self.captions[image] = size, caption
            else:
                self._holds = False

    def write(self, sizes: Mapping[str, Size], captions: Mapping[str, str]) -> str | None:
        """Keep what is known now of the images in `sizes`, by file name; says what went wrong, which is no harm.

        `captions` may hold more: of images that could not be read, there is nothing to keep.
        """
        if self._holds and sizes == self.sizes and self.captions.items() <= captions.items():
            return None
        lines = [self._line(image, size, captions[image]) for image, size in sizes.items()]
        try:
            write_text(self._file, "{\n" + ",\n".join(lines) + "\n}\n")
        except OSError as error:
            return f"{self._file} cannot be written ({error.strerror}): the next start is as slow as this one"
        return None

    def _claims(self) -> Iterator[tuple[str, tuple[Size, str, str]]]:
        """What the file says of each image: size, caption, stamp."""
        for path, entry in self._entries():
            image = path[len(self._start) :] if path.startswith(self._start) else file_name(path)  # the folder may have been moved
            size, caption, stamp = entry.get("resolution"), entry.get("caption"), entry.get("stamp")
            if _is_size(size) and isinstance(caption, str) and isinstance(stamp, str):
                width, height = size
                yield image, ((width, height), caption, stamp)
            else:
                self._holds = False

    def _entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the file says, by path. A line at a time: it may be large."""
        with suppress(OSError, UnicodeDecodeError), self._file.open(encoding="utf-8") as file:
            for line in file:
                try:
                    path, colon = _decode(line)
                    entry, _ = _decode(line, colon + 1)
                except ValueError:  # it is the first or the last, damaged, or somebody else's
                    continue
                if isinstance(path, str) and isinstance(entry, dict):
                    yield path, entry

    def _line(self, image: str, size: Size, caption: str) -> str:
        content = {"caption": caption, "resolution": size, "stamp": self._stamps[image]}
        return f"{_as_json(self._start + image)}:{_as_json(content)}"

    def _stamp(self, image: str, caption_file: str | None) -> str:
        """Of both files bytes and the time of the last change in nanoseconds; "" if one is gone."""
        stamp = self._stats.of(image)
        if not caption_file or not stamp:
            return stamp
        caption_stamp = self._stats.of(caption_file)
        return f"{stamp} {caption_file} {caption_stamp}" if caption_stamp else ""


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _is_size(value: Any) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) != 2:
        return False
    width, height = value
    return isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
