"""The list of files that a run wrote (`files.json` in its folder): only these may be replaced or removed."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from library.checkpoint.files import write_text
from library.checkpoint.naming import Kind, Moment, SavePoint

FILE_NAME = "files.json"
VERSION = 1
SAMPLED = 1 << 20  # bytes at each end of a file: with the size enough to tell files apart that carry times and ids of their run
STATE_FILE = "train_state.json"  # stands for its folder: it holds the hashes of the other files


@dataclass(frozen=True)
class Entry:
    """A file or state folder as it was when it was complete."""

    path: str  # relative to the output folder, with forward slashes
    kind: Kind
    moment: Moment
    step: int
    epoch: int
    size: int  # bytes; of a state folder, those of all its files
    fingerprint: str

    @property
    def point(self) -> SavePoint:
        return SavePoint(self.moment, self.step, self.epoch)


def fingerprint(path: Path) -> str:
    """Recognises a file or a folder, wherever it is copied to: SHA-256 of sizes and both ends of files."""
    digest = hashlib.sha256()
    for file_path in _telling_files(path):
        size = file_path.stat().st_size
        digest.update(str(size).encode())
        with file_path.open("rb") as file:
            digest.update(file.read(SAMPLED))
            file.seek(max(0, size - SAMPLED))
            digest.update(file.read(SAMPLED))
    return digest.hexdigest()


def _telling_files(path: Path) -> list[Path]:
    """A file itself; of a state folder the one with the hashes of the others; of another folder all."""
    if not path.is_dir():
        return [path]
    if (path / STATE_FILE).is_file():
        return [path / STATE_FILE]
    return sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)


class Ledger:
    """What this run, and the runs that it goes on from, wrote into one output folder. On disk after every change."""

    def __init__(self, run_folder: Path, output_dir: Path, lineage: str, inherited: Iterable[Entry] = ()):
        self.path = run_folder / FILE_NAME
        self.output_dir = output_dir
        self.lineage = lineage  # the same for a run and all that resume it
        self._entries = list(inherited)

    def owns(self, path: Path) -> bool:
        """Whether what lies at `path` is what this run or one of its forerunners put there."""
        try:
            found = fingerprint(path)
        except OSError:
            return False
        return any(entry.fingerprint == found for entry in self._entries if entry.path == self._relative(path))

    def announce(self, path: Path, content: Path, kind: Kind, point: SavePoint) -> Entry:
        """Notes that the finished `content` is about to take the name `path`: a kill after the rename makes it no stranger.

        What is known of `path` so far stays known until `settle`.
        """
        entry = Entry(
            self._relative(path), kind, point.moment, point.step, point.epoch, size_on_disk(content), fingerprint(content)
        )
        self._entries.append(entry)
        self._write()
        return entry

    def settle(self, entry: Entry) -> None:
        """Notes that the rename is done: the path holds this and nothing else."""
        self._entries = [other for other in self._entries if other.path != entry.path or other is entry]
        self._write()

    def forget(self, entry: Entry) -> None:
        """Notes that a file is gone."""
        self._entries.remove(entry)
        self._write()

    def entries(self, kind: Kind | None = None, moment: Moment | None = None) -> list[Entry]:
        return [entry for entry in self._entries if kind in (None, entry.kind) and moment in (None, entry.moment)]

    def absolute(self, entry: Entry) -> Path:
        return self.output_dir / entry.path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.output_dir).as_posix()

    def _write(self) -> None:
        facts = {"version": VERSION, "lineage": self.lineage, "files": [asdict(entry) for entry in self._entries]}
        write_text(self.path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def inherited_entries(runs_folder: Path, lineage: str) -> list[Entry]:
    """What all runs of this lineage wrote; the ledgers are those of the run folders in `runs_folder`.

    A ledger that cannot be read makes its files those of strangers: they are kept.
    """
    entries: dict[Entry, None] = {}
    for path in sorted(runs_folder.glob(f"*/{FILE_NAME}")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["version"] == VERSION and facts["lineage"] == lineage:
                entries.update(dict.fromkeys(Entry(**fields) for fields in facts["files"]))
    return list(entries)
