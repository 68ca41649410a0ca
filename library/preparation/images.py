"""The images under a folder, each with the file that holds its caption."""
from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from library.checkpoint.temporary import remove_leftovers
from library.data.caption_files import find_caption
from library.data.folders import Folder, describe_left_out, list_folder, same_names
from library.data.image_files import EXTENSIONS
from library.data.wording import shortened
from library.errors import UserError


@dataclass(frozen=True)
class ImageTree:
    """A folder and, if it was searched recursively, the folders below it."""

    root: Path
    folders: dict[Path, Folder]

    @property
    def images(self) -> list[Path]:
        return [path / name for path, folder in self.folders.items() for name in folder.images]

    def caption_file(self, image: Path, extension: str) -> Path | None:
        """The file that training would take for the image's caption."""
        name = find_caption(self.folders[image.parent], image.name, extension)
        return None if name is None else image.with_name(name)

    def check_names(self) -> None:
        """UserError that names the images which would share a caption file."""
        clashes = [
            f'"{path / first}" and "{path / second}" would share a caption file: rename one of them'
            for path, folder in self.folders.items()
            for first, second in same_names(folder)
        ]
        if clashes:
            raise UserError(*shortened(clashes, "pairs of the same name"))

    def remove_leftovers(self) -> None:
        """Remove what killed runs left half-written beside the images."""
        for path in self.folders:
            remove_leftovers(path)


def find_images(train_data_dir: str, recursive: bool) -> ImageTree:
    """The images of a folder; UserError if there are none."""
    root = Path(train_data_dir)
    if not root.is_dir():
        raise UserError(f'train_data_dir: there is no folder "{root}"')
    paths = _folders_below(root) if recursive else [root]
    tree = ImageTree(root, {path: list_folder(path, "train_data_dir") for path in paths})
    if not tree.images:
        raise UserError(f"train_data_dir: {_why_empty(tree, recursive)}")
    return tree


def _why_empty(tree: ImageTree, recursive: bool) -> str:
    problem = f'there are no images ({" ".join(sorted(EXTENSIONS))}) in "{tree.root}"'
    others = ", ".join(filter(None, map(describe_left_out, tree.folders.values())))
    if not recursive and any(child.is_dir() for child in tree.root.iterdir()):
        return f"{problem}; --recursive searches the folders in it, too"
    return f"{problem}: {others}" if others else problem


def _folders_below(root: Path) -> Iterator[Path]:
    """The folder and all in it, sorted, without hidden ones; each once, even where links lead in circles."""
    seen = set()
    for path, below, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(path)


def with_dot(extension: str) -> str:
    """`txt` and `.txt` are the same caption extension."""
    if extension in ("", "."):
        raise UserError("--caption_extension: this is empty; write .txt, for example")
    return "." + extension.removeprefix(".")
