"""Size and time of the last change of the files of a folder; of many files a second process looks, while this one goes on."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from library.data.folders import within

# For the process's folder: NAME zero "BYTES NANOSECONDS" zero NAME ... Names are bytes, whatever the encoding of file names is.
_LOOK = r"""
import os, sys
found = []
for name in os.listdir(b"."):
    try:
        stat = os.stat(name)
    except OSError:
        continue
    found.append(b"%b\0%d %d" % (name, stat.st_size, stat.st_mtime_ns))
sys.stdout.buffer.write(b"\0".join(found))
"""


class FolderStats(dict[str, str]):
    """Bytes and nanoseconds of a file by its name; "" if it is gone. A file that is not in here is looked at when it is asked for.

    With `many` all are looked at from now on, in a process of its own, which may take a second: `wait` for it.
    """

    def __init__(self, folder: Path, many: bool):
        super().__init__()
        self._start = within(folder, [""])[0]
        self._looking = _start_looking(folder) if many else None

    def wait(self) -> None:
        """Take what the second process has found; if it failed, nothing."""
        if self._looking is None:
            return
        output, _ = self._looking.communicate()
        if self._looking.returncode == 0:
            parts = os.fsdecode(output).split("\0")
            self.update(zip(parts[::2], parts[1::2], strict=False))
        self._looking = None

    def __missing__(self, name: str) -> str:
        try:
            stat = os.stat(self._start + name)  # noqa: PTH116  (a Path takes longer than the look at the disk)
        except OSError:
            return ""
        return f"{stat.st_size} {stat.st_mtime_ns}"


def _start_looking(folder: Path) -> subprocess.Popen[bytes] | None:
    """None if it cannot be started; then each file is looked at when it is asked for."""
    try:
        return subprocess.Popen([sys.executable, "-I", "-S", "-c", _LOOK], cwd=folder, stdout=subprocess.PIPE)
    except OSError:
        return None
