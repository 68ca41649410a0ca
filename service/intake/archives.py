"""Unpacks an archive of pictures that came from outside: whole into folders of generated names, or not at all."""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.intake.layout import PLAIN, Candidate, Layout, sort_out
from service.intake.pictures import BadPicture, PictureChecker, PictureLimits
from service.intake.zip_directory import Entry
from service.intake.zip_names import BadArchive
from service.intake.zip_reader import ZipLimits, ZipReader
from service.storage.space import RESERVE_BYTES, full_is_told, need_room

_SCRATCH = ".unpacking"


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive of pictures may hold and cost."""

    zip: ZipLimits = field(default_factory=ZipLimits)
    picture: PictureLimits = field(default_factory=PictureLimits)
    caption_bytes: int = 64 << 10
    written_bytes: int = 32 << 30  # pictures are written as PNG, which may be larger than what they came as
    few: int = 3  # below so many pictures a warning says so
    reserve_bytes: int = RESERVE_BYTES


USUAL = ArchiveLimits()


@dataclass(frozen=True)
class PictureFile:
    """A picture as it was written (00001.png; its caption: 00001.txt), and what it was called in the archive."""

    path: Path
    original_name: str
    width: int
    height: int
    caption: Path | None


@dataclass(frozen=True)
class Unpacked:
    """What came out. Each warning is a line that names a file and says what was not taken."""

    instance: list[PictureFile]
    classes: list[PictureFile]
    warnings: list[str]


def unpack(
    archive: Path,
    instance: Path,
    classes: Path | None,
    limits: ArchiveLimits = USUAL,
    layout: Layout = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Unpacked:
    """Fills the folders with the archive's pictures and captions; what lay in them before goes. Without `classes` the archive
    has pictures of one kind only.

    A picture that cannot be used is left out with a warning. Raises BadArchive where no picture of the subject is left, and for
    everything that no honest program packs, DiskFull where there is no room; then the folders are as they were. progress is called
    with the pictures that are done and all that there are, and may raise to stop.
    """
    if classes is None:
        layout = replace(layout, classes=None)
    with full_is_told(), ZipReader(archive, limits.zip) as reader, _scratch_beside(instance) as scratch:
        with PictureChecker(limits.picture) as checker:
            found = _Unpacking(reader, checker, scratch, limits, progress).run(layout)
        _publish(scratch / "instance", instance)
        if classes is not None:
            _publish(scratch / "classes", classes)
    return Unpacked(_moved(found.instance, instance), _moved(found.classes, classes) if classes else [], found.warnings)


class _Unpacking:
    """One archive on its way into the scratch folder."""

    def __init__(
        self,
        reader: ZipReader,
        checker: PictureChecker,
        scratch: Path,
        limits: ArchiveLimits,
        progress: Callable[[int, int], None] | None,
    ):
        self._reader, self._checker, self._scratch, self._limits = reader, checker, scratch, limits
        self._progress = progress or (lambda done, total: None)
        self._done = self._written_bytes = 0
        self._warnings: list[str] = []

    def run(self, layout: Layout) -> Unpacked:
        contents = sort_out(self._reader.entries, layout)
        self._warnings = list(contents.warnings)
        total = len(contents.instance) + len(contents.classes)
        instance = self._fill(contents.instance, self._scratch / "instance", total)
        classes = self._fill(contents.classes, self._scratch / "classes", total)
        if not instance:
            place = f"in {layout.instance}/" if layout.instance else "at the root"
            raise BadArchive("; ".join([f"the archive has no usable picture (png, jpeg, webp, bmp) {place}", *self._warnings]))
        if len(instance) < self._limits.few:
            self._warnings.append(f"only {len(instance)} of {self._limits.few} or more pictures that are needed for good results")
        return Unpacked(instance, classes, self._warnings)

    def _fill(self, candidates: list[Candidate], folder: Path, total: int) -> list[PictureFile]:
        folder.mkdir()
        files: list[PictureFile] = []
        for candidate in candidates:
            self._progress(self._done, total)
            try:
                files.append(self._take(candidate, folder / f"{len(files) + 1:05d}.png"))
            except BadPicture as problem:
                self._warnings.append(f"left out: {candidate.picture.name}: {problem}")
            self._done += 1
        self._progress(self._done, total)
        return files

    def _take(self, candidate: Candidate, path: Path) -> PictureFile:
        raw = self._scratch / "raw"
        need_room(self._scratch, min(candidate.picture.size, self._limits.zip.entry_bytes), self._limits.reserve_bytes)
        with raw.open("wb") as file:
            for block in self._reader.blocks(candidate.picture):
                file.write(block)
        picture = self._checker.rewrite(raw, path)
        self._written_bytes += path.stat().st_size
        if self._written_bytes > self._limits.written_bytes:
            raise BadArchive(f"the archive's pictures take more than {self._limits.written_bytes} bytes; send smaller ones")
        caption = None if candidate.caption is None else self._caption(candidate.caption, path.with_suffix(".txt"))
        return PictureFile(path, candidate.picture.name, picture.width, picture.height, caption)

    def _caption(self, entry: Entry, path: Path) -> Path | None:
        data = self._reader.read(entry, self._limits.caption_bytes)
        problem = None
        if data is None:
            problem = f"a caption has at most {self._limits.caption_bytes} bytes"
        else:
            try:
                text = data.decode("utf-8-sig")
                if any(letter < " " and letter not in "\t\n\r" for letter in text):
                    problem = "the caption has control characters"
            except UnicodeDecodeError:
                problem = "captions are text in UTF-8"
        if problem is not None:
            self._warnings.append(f"left out: {entry.name}: {problem}")
            return None
        path.write_text(text, encoding="utf-8", newline="\n")
        return path


@contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk, gone afterwards; one that a killed process left goes before."""
    scratch = folder.parent / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(source: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    source.replace(folder)


def _moved(files: list[PictureFile], folder: Path) -> list[PictureFile]:
    def new(path: Path) -> Path:
        return folder / path.name

    return [
        PictureFile(new(file.path), file.original_name, file.width, file.height, file.caption and new(file.caption)) for file in files
    ]
