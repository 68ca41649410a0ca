"""What a run has found so far, a line each in a file beside its output, so that a killed run loses nothing."""
from __future__ import annotations

import json
from pathlib import Path

from library.preparation.metadata_file import Entries, Entry
from library.preparation.writing import writing


class Journal:
    """Entries on their way into the metadata file `out`. A line that is torn, and what follows it, is forgotten."""

    def __init__(self, out: Path):
        self.path = out.with_name(f"{out.name}.unfinished")
        self.entries: Entries = {}
        with writing(self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
            self._file = self.path.open("r+b" if content else "wb")
            self._file.truncate(self._read(content))
            self._file.seek(0, 2)

    def _read(self, content: bytes) -> int:
        """Take the entries of all whole lines; the number of bytes of these."""
        length = 0
        for line in content.splitlines(keepends=True):
            try:
                key, entry = json.loads(line if line.endswith(b"\n") else b"null")
            except (ValueError, TypeError):
                break
            self.entries[key] = entry
            length += len(line)
        return length

    def add(self, key: str, entry: Entry) -> None:
        """Remember an entry, from now on whatever happens to this process."""
        self.entries[key] = entry
        with writing(self.path):
            self._file.write(json.dumps([key, entry]).encode() + b"\n")
            self._file.flush()

    def remove(self) -> None:
        """Delete the file: all that it holds is in the output now."""
        with writing(self.path):
            self._file.close()
            self.path.unlink(missing_ok=True)
