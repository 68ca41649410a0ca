"""Which image each key of a metadata file means, and which key an image has or gets."""
from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from library.data.wording import shortened
from library.errors import UserError


class ImageKeys:
    """The keys of the images of one folder in one metadata file.

    A key is an absolute path, or one from the folder of the images; with or without the extension of the image; or the image's
    bare name in any folder below. Keys of images elsewhere mean nothing here and are left alone.
    """

    def __init__(self, keys: Iterable[str], root: Path, images: Sequence[Path], where: str):
        """`where` names the metadata file in messages. UserError if a key means several images, or an image has several keys."""
        self._root = root
        finder = _Finder(root, images)
        meanings: dict[Path, list[str]] = defaultdict(list)
        mistakes = []
        for key in keys:
            found = finder.find(key)
            if len(found) > 1:
                several = ", ".join(f'"{path}"' for path in found)
                mistakes.append(f'{where} "{key}": this could be {several}: write which, with its extension')
            elif found:
                meanings[found[0]].append(key)
        for image, several_keys in meanings.items():
            if len(several_keys) > 1:
                names = ", ".join(f'"{key}"' for key in several_keys)
                mistakes.append(f'{where}: {names} all mean "{image}": delete all but one')
        if mistakes:
            raise UserError(*shortened(mistakes, "ambiguous keys"))
        self._known = {image: names[0] for image, names in meanings.items()}

    def key_of(self, image: Path, full_path: bool) -> str:
        """The key that the image has in the file, else the one that it gets: its whole path, or that from the folder."""
        known = self._known.get(image)
        if known is not None:
            return known
        return str(image.absolute()) if full_path else image.relative_to(self._root).as_posix()


class _Finder:
    """Looks images up by what a key may be."""

    def __init__(self, root: Path, images: Sequence[Path]):
        self._root = root
        self._by_path = {_plain(image): image for image in images}
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            self._by_stem[_plain(image.with_suffix(""))].append(image)
            for name in {image.name, image.stem}:
                self._by_name[os.path.normcase(name)].append(image)

    def find(self, key: str) -> list[Path]:
        """The images that the key may mean; the closest way of reading it decides."""
        for written in dict.fromkeys((key, key.replace("\\", "/"))):
            path = _plain(self._root / written)
            if path in self._by_path:
                return [self._by_path[path]]
            if path in self._by_stem:
                return self._by_stem[path]
        return self._by_name.get(os.path.normcase(key), [])


def _plain(path: Path) -> str:
    """The same text for all ways to write a path."""
    return os.path.normcase(os.path.abspath(path))  # noqa: PTH100  (resolve would follow links, which may have other names)
