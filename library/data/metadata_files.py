"""Reads the metadata files of fine-tuning (.json and .jsonl): pictures with captions, tags and sizes."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.spelling import closest
from library.config.text_files import read_json, read_text
from library.data.records import Size
from library.data.wording import shortened
from library.errors import UserError

_WHAT = "metadata file"
_KEY = "image_path"  # in .jsonl, where each line is an object of its own
_FIELDS = ("caption", "tags", "image_size")
_IGNORED = ("train_resolution",)  # written by tools; the buckets of this run decide


@dataclass(slots=True)
class Entry:
    """What the file says of one picture."""

    key: str  # path of the picture, whole or relative, with or without its extension
    where: str  # for messages
    caption: str | None = None
    tags: str | None = None
    size: Size | None = None


@dataclass
class Metadata:
    """The content of a metadata file."""

    entries: list[Entry] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)  # fields that mean nothing here: how often


def read_metadata(path: Path) -> Metadata:
    """All entries; UserError tells every mistake."""
    metadata = Metadata()
    mistakes: list[str] = []
    rows = _lines(path, mistakes) if path.suffix.lower() == ".jsonl" else _objects(path, mistakes)
    for where, key, fields in rows:
        metadata.entries.append(_entry(where, key, fields, metadata.unused, mistakes))
    if not metadata.entries and not mistakes:
        mistakes.append(f"{path}: this {_WHAT} names no picture")
    if mistakes:
        raise UserError(*shortened(mistakes, "mistakes in this file"))
    return metadata


def assemble_caption(caption: str | None, tags: str | None, separator: str, every_line: bool) -> str:
    """Caption and tags as one text: every line of the caption (or only the first) followed by the tags, which are one line."""
    lines = _stripped(caption)
    tag_line = separator.join(_stripped(tags))
    if not every_line:
        lines = lines[:1]
    return "\n".join(separator.join(part for part in (line, tag_line) if part) for line in lines or [""])


def _stripped(text: str | None) -> list[str]:
    return [stripped for line in (text or "").replace("\r", "\n").split("\n") if (stripped := line.strip())]


def _objects(path: Path, mistakes: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    content = read_json(path, _WHAT)
    if not isinstance(content, dict):
        raise UserError(f'{path}: a {_WHAT} holds one object {{"picture": {{"caption": "..."}}, ...}}; this is something else')
    for key, fields in content.items():
        where = f'{path} "{key}"'
        if isinstance(fields, dict):
            yield where, key, fields
        else:
            mistakes.append(f'{where}: expected an object such as {{"caption": "..."}}')


def _lines(path: Path, mistakes: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path, _WHAT).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            mistakes.append(f"{where}: not valid JSON: {error}")
            continue
        key = fields.pop(_KEY, None) if isinstance(fields, dict) else None
        if isinstance(key, str) and key:
            yield where, key, fields
        else:
            found = f'; did you mean "{guess}"?' if isinstance(fields, dict) and (guess := closest(_KEY, fields)) else ""
            mistakes.append(f'{where}: {_KEY} is missing; write {{"{_KEY}": "...", "caption": "..."}}{found}')


def _entry(where: str, key: str, fields: dict[str, Any], unused: Counter[str], mistakes: list[str]) -> Entry:
    for name in fields:
        if name not in _FIELDS and name not in _IGNORED:
            if not unused[name] and (guess := closest(name, _FIELDS)) and guess not in fields:  # the first speaks for all
                mistakes.append(f'{where} {name}: unknown field; did you mean "{guess}"?')
            unused[name] += 1
    texts = {}
    for name in ("caption", "tags"):
        text = fields.get(name)
        if text is not None and not isinstance(text, str):
            mistakes.append(f"{where} {name}: expected text, found {json.dumps(text)}")
            text = None
        texts[name] = text
    return Entry(key, where, **texts, size=_size(where, fields.get("image_size"), mistakes))


def _size(where: str, value: Any, mistakes: list[str]) -> Size | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    mistakes.append(f"{where} image_size: expected [width, height], found {json.dumps(value)}")
    return None
