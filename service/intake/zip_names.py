"""Names of the entries of a zip file: normalised, and refused where they could lead out of a folder."""
from __future__ import annotations

import unicodedata

_LONGEST_COMPONENT, _LONGEST_NAME = 255, 1024  # bytes


class BadArchive(Exception):
    """An archive that is not taken: one line for the person who sent it."""


def checked_name(raw: bytes, is_utf_8: bool) -> tuple[str, bool]:
    """The normalised name, and whether it is a folder's. Raises BadArchive for one that could lead out of a folder."""
    text = _decode(raw, is_utf_8)
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise BadArchive(f"{shown(raw)}: the name has control characters")
    if "\\" in text:
        raise BadArchive(f"{shown(raw)}: the name has a backslash; pack with a program that writes '/' between folders")
    if text.startswith("/") or text[1:2] == ":":
        raise BadArchive(f"{shown(raw)}: the name is a path from a root; pack the folder itself")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise BadArchive(f"{shown(raw)}: the name leads out of the archive")
    name = unicodedata.normalize("NFC", "/".join(parts))
    if len(name.encode()) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_COMPONENT for part in name.split("/")):
        raise BadArchive(f"{shown(raw)}: the name is longer than {_LONGEST_COMPONENT} bytes")
    return name, text.endswith("/")


def _decode(raw: bytes, is_utf_8: bool) -> str:
    """UTF-8, which most programs write whether they say so or not; else the code page of the first PCs, as the format says."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        if is_utf_8:
            raise BadArchive(f"{shown(raw)}: the name is no UTF-8") from None
        return raw.decode("cp437")


def shown(raw: bytes) -> str:
    """A name from outside as a message may hold it: one line, not long."""
    return ascii(raw[:60].decode("utf-8", "replace"))
