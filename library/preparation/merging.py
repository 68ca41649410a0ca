"""Puts the captions or tags that lie beside images into a metadata file."""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from library.config.declare import option
from library.config.tool import positional
from library.data.caption_files import caption_lines
from library.data.wording import shortened
from library.errors import UserError
from library.preparation.images import ImageTree, find_images, with_dot
from library.preparation.keys import ImageKeys
from library.preparation.metadata_file import check_writable, read_sources, write_metadata

_USUAL_EXTENSIONS = (".caption", ".txt", ".cap", ".text", ".tags")


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """What is merged from where to where."""

    train_data_dir: str = positional("Folder of the images and of the text files beside them.")
    out_json: str = positional("Metadata file to write; if it exists it is read, completed and kept as .bak.")
    in_json: str | None = option(None, "Metadata file to start from.")
    caption_extension: str = option(".caption", "Extension of the text files.")
    full_path: bool = option(False, "Name new images by their whole path, not by their path from train_data_dir.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")
    debug: bool = option(False, "Print each image with what is merged.")


def merge(settings: MergeOptions, field: str) -> None:
    """Merge into one field of entries, "caption" or "tags", and say what was done. All other metadata stays as it is."""
    out = Path(settings.out_json)
    check_writable(out)
    extension = with_dot(settings.caption_extension)
    tree = find_images(settings.train_data_dir, settings.recursive)
    tree.check_names()
    entries = read_sources(settings.in_json, settings.out_json)
    keys = ImageKeys(entries, tree.root, tree.images, settings.in_json or settings.out_json)
    texts = _read_texts(tree, extension, field)
    for image, text in texts.items():
        key = keys.key_of(image, settings.full_path)
        entries.setdefault(key, {})[field] = text
        if settings.debug:
            print(f"{key}: {text}")
    write_metadata(out, entries)
    without = len(tree.images) - len(texts)
    print(f"{out}: {field} of {len(texts)} images merged; {without} images have no {extension} file")


def _read_texts(tree: ImageTree, extension: str, field: str) -> dict[Path, str]:
    texts = {}
    mistakes: list[str] = []
    for image in tqdm(tree.images, desc=f"reading {extension} files", unit="image"):
        path = tree.caption_file(image, extension)
        if path is None:
            continue
        try:
            lines = caption_lines(str(path))
            texts[image] = ", ".join(tags_in("\n".join(lines))) if field == "tags" else "\n".join(lines)
        except UserError as error:
            mistakes += error.messages
    if mistakes:
        raise UserError(*shortened(mistakes, "files that cannot be read"))
    if not texts:
        raise UserError(_nothing_found(tree, extension))
    return texts


def tags_in(text: str) -> list[str]:
    """The tags of a comma-separated text; DeepDanbooru ends its lists with a comma."""
    return [stripped for tag in re.split(r"[,\n]", text) if (stripped := tag.strip())]


def _nothing_found(tree: ImageTree, extension: str) -> str:
    found = Counter(
        other for other in _USUAL_EXTENSIONS for image in tree.images if other != extension and tree.caption_file(image, other)
    )
    problem = f'train_data_dir: no image in "{tree.root}" has a {extension} file'
    if not found:
        return problem
    other, count = found.most_common(1)[0]
    return f"{problem}, but {count} of {len(tree.images)} have a {other} file: give --caption_extension {other}"
