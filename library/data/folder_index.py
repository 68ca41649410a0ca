"""metadata_cache.json beside the pictures (`cache_info`): captions and sizes, each used while the files are as they were."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
        self._images: Sequence[str] = ()
        # Of each image, in this order; of the first two None where something changed, and the files must be read.
        self.sizes: list[Size | None] = []
        self.captions: list[str | None] = []  # the lines of the caption file; without one, what was used instead
        self._stamps: list[str] = []
        self._holds = True  # whether there is nothing else in the file

    def read(self, images: Sequence[str], caption_files: Sequence[str | None]) -> None:
        """Take what still holds of these images, all by file name."""
        claims = dict(self._claims())  # first: the files may still be looked at by another process
        self._stats.wait()
        self._images = images
        stats = self._stats  # a file that is gone leaves a gap in the stamp, and such a stamp is never written
        self._stamps = [
            f"{stats[image]} {caption_file} {stats[caption_file]}" if caption_file else stats[image]
            for image, caption_file in zip(images, caption_files, strict=True)
        ]
        stats.clear()
        held = [
            claim if (claim := claims.get(image)) and claim[2] == stamp else None
            for image, stamp in zip(images, self._stamps, strict=True)
        ]
        self.sizes = [claim[0] if claim else None for claim in held]
        self.captions = [claim[1] if claim else None for claim in held]
        self._holds = self._holds and len(claims) == len(held) - held.count(None)

    def write(self, sizes: Sequence[Size | None], captions: Sequence[str]) -> str | None:
        """Keep what is known now of each image; says what went wrong, which is no harm.

        Without a size the image could not be read, and there is nothing to keep.
        """
        kept = [caption if size else None for size, caption in zip(sizes, captions, strict=True)]
        if self._holds and sizes == self.sizes and kept == self.captions:
            return None
        known = zip(self._images, sizes, captions, self._stamps, strict=True)
        lines = [self._line(image, size, caption, stamp) for image, size, caption, stamp in known if size and stamp == stamp.strip() != ""]
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

    def _line(self, image: str, size: Size, caption: str, stamp: str) -> str:
        content = {"caption": caption, "resolution": size, "stamp": stamp}
        return f"{_as_json(self._start + image)}:{_as_json(content)}"


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
