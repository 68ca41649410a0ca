"""Fetches an archive, or another file, from a URL that a stranger gave: https:, data:, or one of our own."""
from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

from service.intake.addresses import FetchFailed
from service.intake.download import download
from service.intake.target import FetchRules, Target
from service.storage.space import full_is_told, part_of

_BLOCK_BYTES = 1 << 16
USUAL = FetchRules()


def fetch(url: str, destination: Path, rules: FetchRules = USUAL) -> None:
    """Writes the zip archive behind the URL (any file, where the rules say so) to the file, whole or not at all.

    Raises ForbiddenAddress or FetchFailed, one line for the person who gave the URL, and DiskFull.
    """
    with full_is_told(), part_of(destination) as temporary, temporary.open("w+b") as file:
        target = Target(file, temporary.parent, rules)
        _fill(url, target)
        target.finish()
        file.flush()
        os.fsync(file.fileno())


def _fill(url: str, target: Target) -> None:
    own = target.rules.own_content(url)
    if own is not None:
        with own:
            while block := own.read(_BLOCK_BYTES):
                target.write(block)
    elif url[:5].lower() == "data:":
        target.write(_data_of(url, target.rules.max_data_bytes))
    else:
        download(url, target)


def _data_of(url: str, max_bytes: int) -> bytes:
    """The content of a data: URI."""
    head, comma, body = url.partition(",")
    if not comma:
        raise FetchFailed("the data: URI has no comma; write data:application/zip;base64,...")
    if len(body) <= 4 * max_bytes:  # a percent sign takes three letters a byte
        data = unquote_to_bytes(body)
        if head.lower().endswith(";base64"):
            try:
                data = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError):
                raise FetchFailed("the data: URI is no base64") from None
        if len(data) <= max_bytes:
            return data
    raise FetchFailed(f"a data: URI holds at most {max_bytes} bytes; give an https: URL")
