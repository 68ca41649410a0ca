"""Puts the captions or tags that lie beside images into a metadata file."""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from library.data.caption_files import caption_lines
from library.data.wording import shortened
from library.errors import UserError
from library.preparation.images import ImageTree, find_images, with_dot
from library.preparation.keys import ImageKeys
from library.preparation.metadata_file import check_writable, read_sources, write_metadata

_USUAL_EXTENSIONS = (".caption", ".txt", ".cap", ".text", ".tags")


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What is merged from where to where."""

    field: str  # of an entry: "caption" or "tags"
    train_data_dir: str
    in_json: str | None
    out_json: str
    caption_extension: str
    full_path: bool
    recursive: bool
    debug: bool


def merge(settings: Merge) -> None:
    """Merge and say what was done. Metadata of other images and other fields stays as it is."""
    out = Path(settings.out_json)
    check_writable(out)
    extension = with_dot(settings.caption_extension)
    tree = find_images(settings.train_data_dir, settings.recursive)
    tree.check_names()
    entries = read_sources(settings.in_json, settings.out_json)
    keys = ImageKeys(entries, tree.root, tree.images, settings.in_json or settings.out_json)
    texts = _read_texts(tree, extension, settings.field)
    for image, text in texts.items():
        key = keys.key_of(image, settings.full_path)
        entries.setdefault(key, {})[settings.field] = text
        if settings.debug:
            print(f"{key}: {text}")
    write_metadata(out, entries)
    without = len(tree.images) - len(texts)
    print(f"{out}: {settings.field} of {len(texts)} images merged; {without} images have no {extension} file")


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
