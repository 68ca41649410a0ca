"""A job's folder for temporary files: beside its other files, and by a name that is short enough for sockets. Standard library only."""
from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Temporary(NamedTuple):
    """The folder, and the name that a job gets for it where it sees the machine as it is."""

    folder: Path
    name: Path


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Temporary]:
    """For as long as a job runs. Data loaders put sockets there, whose path may have 107 bytes: data lies too deep for that."""
    folder = parent / f"tmp-{socket.gethostname()}-{os.getpid()}"
    folder.mkdir()
    place = Path(tempfile.mkdtemp(prefix="tadpole-")) if os.name != "nt" else None  # Windows has pipes for it, and links for few
    try:
        if place is not None:
            (place / "t").symlink_to(folder.absolute(), target_is_directory=True)
        yield Temporary(folder, folder if place is None else place / "t")
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
