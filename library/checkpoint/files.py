"""Files that are whole or absent: written beside their place under a temporary name, flushed to the disk, then renamed."""
from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from library.checkpoint.temporary import temporary_path
from library.errors import UserError

RENAME_ATTEMPTS = 8  # a virus scanner or an indexer holds a fresh file on Windows for a moment
RENAME_FIRST_WAIT = 0.05  # seconds, doubled at each attempt
CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # some network and user-space file systems know no fsync


@contextmanager
def atomic_write(path: str | Path, durable: bool = True, before_rename: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Gives a temporary path to write to; at the end it takes the name `path`, and if anything fails it is removed.

    durable=False does not wait for the disk: whole whenever a process is killed, but not after a power cut.
    before_rename is called with the finished temporary file.
    """
    path = Path(path)
    temporary = temporary_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.touch()
        rights = temporary.stat().st_mode  # that new files get here
        yield temporary
        _give_rights(temporary, rights)
        if durable:
            flush_file(temporary)
        if before_rename is not None:
            before_rename(temporary)
        replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        flush_folder(path.parent)


@contextmanager
def atomic_directory(path: str | Path, before_rename: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Gives a temporary folder to fill; at the end it takes the name `path`, which must be free by then.

    before_rename is called with the finished temporary folder.
    """
    path = Path(path)
    temporary = temporary_path(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _give_rights(Path(folder, name), temporary.stat().st_mode & 0o666)
                flush_file(Path(folder, name))
            flush_folder(Path(folder))
        if before_rename is not None:
            before_rename(temporary)
        if path.exists():  # POSIX would replace an empty folder
            raise FileExistsError(f"{path} exists already")
        replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def _give_rights(path: Path, rights: int) -> None:
    """Some writers (safetensors) make files that nobody but their owner may read."""
    if stat.S_IMODE(path.stat().st_mode) != stat.S_IMODE(rights):
        with suppress(OSError):  # not every file system knows rights
            path.chmod(stat.S_IMODE(rights))


def write_text(path: str | Path, text: str) -> None:
    """Writes a small text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def replace(source: Path, target: Path, wait: Callable[[float], None] = time.sleep) -> None:
    """`os.replace`, tried again where Windows refuses because somebody reads the file just now."""
    for attempt in range(RENAME_ATTEMPTS):
        try:
            source.replace(target)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == RENAME_ATTEMPTS - 1:
                raise
        wait(RENAME_FIRST_WAIT * 2**attempt)


def flush_file(path: Path) -> None:
    """Waits until the file's bytes are on the disk."""
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in CANNOT_FLUSH:
                raise


def flush_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk, where the system can say so (Windows cannot open a folder)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, or a folder in such a way that a kill never leaves half of it under its own name."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = temporary_path(path)
    replace(path, doomed)
    shutil.rmtree(doomed)


def set_aside(path: str | Path) -> Path | None:
    """Renames what exists at `path` to `<stem>.<YYYYmmdd-HHMMSS><ext>`, a free name; None if there was nothing."""
    path = Path(path)
    if not os.path.lexists(path):
        return None
    is_folder = path.is_dir()
    stem, extension = (path.name, "") if is_folder else (path.stem, path.suffix)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside, count = path.with_name(f"{stem}.{stamp}{extension}"), 1
    while os.path.lexists(aside):
        count += 1
        aside = path.with_name(f"{stem}.{stamp}-{count}{extension}")
    replace(path, aside)
    flush_folder(path.parent)
    return aside


def free_bytes(folder: str | Path) -> int:
    """Free bytes on the disk of `folder`, or of its nearest existing parent."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_space_check(folder: str | Path, expected_bytes: int) -> None:
    """Raises UserError if the disk of `folder` has no room for `expected_bytes`."""
    free = free_bytes(folder)
    if free < expected_bytes:
        raise UserError(
            f"no room on the disk of {folder}: {readable_size(expected_bytes)} are needed, {readable_size(free)} are free; "
            "remove something or choose another output_dir"
        )


def writable_check(folder: str | Path, option: str = "output_dir") -> None:
    """Makes `folder`, which `option` names, and raises UserError if no file can be written into it."""
    folder = Path(folder)
    probe = folder / ".write-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(probe) as temporary:
            temporary.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{option} {folder} cannot be written: {reason}; choose another folder or mend its rights") from error


def readable_size(count: int) -> str:
    """A count of bytes as a person says it: 1.5 GiB."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
