"""Writing files with errors that name them."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from library.checkpoint.files import atomic_write
from library.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk, missing rights and the like become a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: this cannot be written: {error.strerror or error}") from error


def write_caption(path: Path, caption: str) -> None:
    """Write a caption file, whole or not at all."""
    with writing(path), atomic_write(path, durable=False) as temporary:  # waiting for the disk would take longer than most models
        temporary.write_text(caption + "\n", encoding="utf-8", newline="\n")
