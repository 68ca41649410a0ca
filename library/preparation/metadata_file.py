"""Metadata files, .json or .jsonl: what is known of each image. What a new one replaces stays as .bak."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library.checkpoint.files import atomic_write, write_text
from library.checkpoint.temporary import remove_leftovers
from library.config.text_files import read_json, read_text
from library.errors import UserError
from library.preparation.writing import writing

Entry = dict[str, Any]  # caption, tags, image_size, train_resolution, and whatever else other tools put there
Entries = dict[str, Entry]  # by the image's key: its path, absolute or from the folder of the images, or that without extension


def is_json_lines(path: Path) -> bool:
    """Whether a metadata file is .jsonl; UserError if it is neither that nor .json."""
    kind = path.suffix.lower()
    if kind not in (".json", ".jsonl"):
        raise UserError(f'{path}: a metadata file ends in .json or .jsonl, this ends in "{path.suffix}"')
    return kind == ".jsonl"


def read_metadata(path: Path) -> Entries:
    """The entries of a metadata file."""
    return _read_lines(path) if is_json_lines(path) else _read_object(path)


def read_sources(in_json: str | None, out_json: str) -> Entries:
    """What is known already: what the output file holds, if it exists, overridden by what the input file holds."""
    out = Path(out_json)
    is_json_lines(out)
    entries = read_metadata(out) if out.exists() else {}
    if in_json and Path(in_json) != out:
        for key, entry in read_metadata(Path(in_json)).items():
            entries[key] = {**entries.get(key, {}), **entry}
    return entries


def write_metadata(path: Path, entries: Entries) -> None:
    """Write a metadata file, whole or not at all; what it replaces is kept as .bak, unless it is the same."""
    text = _as_lines(entries) if is_json_lines(path) else json.dumps(entries, indent=2) + "\n"
    with writing(path):
        remove_leftovers(path.parent)  # of runs that were killed
        if path.exists():
            if path.read_bytes() == text.encode():
                return
            with atomic_write(path.with_name(f"{path.name}.bak")) as temporary:
                shutil.copyfile(path, temporary)
        write_text(path, text)


def check_writable(path: Path) -> None:
    """UserError, before any work is done, if the place for a metadata file is none."""
    is_json_lines(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another place")


def _read_object(path: Path) -> Entries:
    content = read_json(path, "metadata file")
    if not isinstance(content, dict):
        raise UserError(f'{path}: a metadata file holds one object {{"image": {{"caption": ...}}, ...}}, this is something else')
    for key, entry in content.items():
        _check(entry, lambda key=key: f'{path} "{key}"')  # type: ignore[misc]
    return content


def _read_lines(path: Path) -> Entries:
    entries: Entries = {}
    for number, line in enumerate(read_text(path, "metadata file").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON: {error}") from None
        _check(entry, lambda number=number: f"{path}, line {number}")  # type: ignore[misc]
        key = entry.pop("image_path", None)
        if not isinstance(key, str):
            raise UserError(f'{path}, line {number}: "image_path", the path of the image, is missing')
        if key in entries:
            raise UserError(f'{path}, line {number}: "{key}" stands on an earlier line, too: delete one of them')
        entries[key] = entry
    return entries


def _as_lines(entries: Entries) -> str:
    return "".join(json.dumps({"image_path": key, **entry}) + "\n" for key, entry in entries.items())


def _check(entry: Any, where: Callable[[], str]) -> None:
    if not isinstance(entry, dict):
        raise UserError(f'{where()}: expected {{"caption": ..., "tags": ...}}, found {json.dumps(entry)[:40]}')
    for name in ("caption", "tags"):
        if not isinstance(entry.get(name, ""), str):
            raise UserError(f"{where()} {name}: expected text, found {json.dumps(entry[name])[:40]}")
