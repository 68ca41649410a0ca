"""Where a tagger's findings go: a file of tags beside each image, or one metadata file."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from library.data.caption_files import caption_lines
from library.errors import UserError
from library.preparation.describing import uncaptioned
from library.preparation.images import ImageTree
from library.preparation.journal import Journal
from library.preparation.keys import ImageKeys
from library.preparation.metadata_file import Entry, check_writable, is_json_lines, read_metadata, write_metadata
from library.preparation.writing import write_caption

Size = tuple[int, int]


class TagTarget(Protocol):
    """What the tagger's loop needs to know of either."""

    def missing(self) -> list[Path]:
        """The images that have to be tagged."""

    def keep(self, image: Path, tags: list[str], size: Size) -> None:
        """Store an image's tags, so that nothing loses them any more."""

    def all_tags(self) -> Iterator[list[str]]:
        """The tags of each image, from this run and from earlier ones. For afterwards."""

    def __enter__(self) -> TagTarget: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What is kept is put in its place, whether or not the others failed."""


class TagFiles:
    """Beside each image a file with its tags. With `append`, new tags are put behind those that are there."""

    def __init__(self, tree: ImageTree, extension: str, separator: str, append: bool):
        self._tree, self._extension, self._separator, self._append = tree, extension, separator, append

    def __enter__(self) -> TagFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Each image's file was in its place when it was kept."""

    def missing(self) -> list[Path]:
        if not self._append:
            return uncaptioned(self._tree, self._extension)
        self._tree.check_names()
        self._tree.remove_leftovers()
        return self._tree.images

    def keep(self, image: Path, tags: list[str], size: Size) -> None:
        path = image.with_suffix(self._extension)
        old = self._read(path) if self._append else []
        write_caption(path, self._separator.join(dict.fromkeys([*old, *tags])))

    def all_tags(self) -> Iterator[list[str]]:
        return (self._read(image.with_suffix(self._extension)) for image in self._tree.images)

    def _read(self, path: Path) -> list[str]:
        return split_tags("\n".join(caption_lines(str(path))), self._separator) if path.exists() else []


class TagMetadata:
    """One metadata file: "tags" of each image in a .json, "caption" in a .jsonl, and the image's size."""

    def __init__(self, tree: ImageTree, out: Path, separator: str, append: bool):
        check_writable(out)
        self._out, self._separator, self._append, self._images = out, separator, append, tree.images
        self._field = "caption" if is_json_lines(out) else "tags"
        self._entries = read_metadata(out) if out.exists() else {}
        self._keys = ImageKeys(self._entries, tree.root, tree.images, str(out))
        self._journal = Journal(out)

    def __enter__(self) -> TagMetadata:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for key, entry in self._journal.entries.items():
            self._entries[key] = {**self._entries.get(key, {}), **entry}
        if self._journal.entries:
            write_metadata(self._out, self._entries)
        self._journal.remove()

    def missing(self) -> list[Path]:
        missing = []
        for image in self._images:
            known = self._key(image) in self._journal.entries or (not self._append and self._field in self._entry(image))
            if not known:
                missing.append(image)
        if done := len(self._images) - len(missing):
            print(f"{done} of {len(self._images)} images have {self._field} in {self._out} already")
        return missing

    def keep(self, image: Path, tags: list[str], size: Size) -> None:
        old = split_tags(self._entry(image).get(self._field, ""), self._separator) if self._append else []
        text = self._separator.join(dict.fromkeys([*old, *tags]))
        self._journal.add(self._key(image), {self._field: text, "image_size": list(size)})

    def all_tags(self) -> Iterator[list[str]]:
        return (split_tags(self._entry(image).get(self._field, ""), self._separator) for image in self._images)

    def _key(self, image: Path) -> str:
        return self._keys.key_of(image, full_path=True)

    def _entry(self, image: Path) -> Entry:
        return self._entries.get(self._key(image), {})


def split_tags(text: str, separator: str) -> list[str]:
    """The tags between separators, whatever the blanks around these."""
    mark = separator.strip()
    parts = text.split(mark) if mark else text.split()
    return [stripped for part in parts if (stripped := part.strip())]


def check_separator(separator: str) -> None:
    if not separator:
        raise UserError('--caption_separator: this is empty; write ", ", for example')
