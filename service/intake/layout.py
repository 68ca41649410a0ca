"""Which file of an archive is what: pictures of the subject, pictures of its class, captions; by names alone."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from service.intake.zip_directory import Entry

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")
CAPTION_ENDINGS = (".txt", ".caption")  # the first that is there counts
_OTHER_PICTURES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".psd", ".svg")
_JUNK_FOLDER = "__MACOSX"
_JUNK_FILES = ("thumbs.db", "desktop.ini")
_MOST_NAMED = 3  # files in one warning


@dataclass(frozen=True)
class Layout:
    """In which folders of an archive pictures lie; "" is its root. Without `classes` there are no class pictures."""

    instance: str = ""
    classes: str | None = "dataset_class"
    known: tuple[str, ...] = ()  # further files that the client always packs: nobody has to be told that they are no pictures


PLAIN = Layout()


@dataclass(frozen=True)
class Candidate:
    """A file that is a picture by its name, and the caption file beside it."""

    picture: Entry
    caption: Entry | None


@dataclass(frozen=True)
class Contents:
    """Pictures in the order of their names."""

    instance: list[Candidate]
    classes: list[Candidate]
    warnings: list[str]


def sort_out(entries: Iterable[Entry], layout: Layout) -> Contents:
    """What each file is for. What has no use is told in the warnings, but for what systems leave behind."""
    told = (entry for entry in entries if not entry.is_folder and entry.name not in layout.known)
    kept = [(PurePosixPath(entry.name), entry) for entry in told if not _is_junk(entry.name)]
    named = sorted(_unwrapped(kept, layout), key=lambda pair: pair[0].as_posix())
    captions = _captions(named)
    found: dict[str | None, list[Candidate]] = {}
    unused: dict[str, list[str]] = {}
    for path, entry in named:
        folder = "" if path.parent == PurePosixPath() else path.parent.as_posix()
        if path.suffix.lower() in PICTURE_ENDINGS and folder in (layout.instance, layout.classes):
            found.setdefault(folder, []).append(Candidate(entry, captions.pop(path.with_suffix(""), None)))
        elif path.suffix.lower() not in CAPTION_ENDINGS:
            unused.setdefault(_reason(path, layout), []).append(entry.name)
    if captions:
        unused["a caption without a picture"] = [entry.name for entry in captions.values()]
    return Contents(found.get(layout.instance, []), found.get(layout.classes, []), [_warning(*pair) for pair in unused.items()])


def _unwrapped(named: list[tuple[PurePosixPath, Entry]], layout: Layout) -> list[tuple[PurePosixPath, Entry]]:
    """Without the one folder that holds every picture, if there is one: people pack the folder instead of what is in it."""
    pictures = [path for path, _ in named if path.suffix.lower() in PICTURE_ENDINGS]
    tops = {path.parts[0] for path in pictures if len(path.parts) > 1}
    own = {folder.split("/")[0] for folder in (layout.instance, layout.classes) if folder}
    if len(tops) != 1 or tops & own or any(len(path.parts) == 1 for path in pictures):
        return named
    top = tops.pop()
    return [(PurePosixPath(*path.parts[1:]) if path.parts[0] == top else path, entry) for path, entry in named]


def _captions(named: list[tuple[PurePosixPath, Entry]]) -> dict[PurePosixPath, Entry]:
    """By the path of the picture without its ending; where a picture has both kinds, the first of CAPTION_ENDINGS."""
    found: dict[PurePosixPath, Entry] = {}
    for ending in reversed(CAPTION_ENDINGS):
        found |= {path.with_suffix(""): entry for path, entry in named if path.suffix.lower() == ending}
    return found


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == _JUNK_FOLDER or parts[-1].lower() in _JUNK_FILES or any(part.startswith(".") for part in parts)


def _reason(path: PurePosixPath, layout: Layout) -> str:
    ending = path.suffix.lower()
    if ending in PICTURE_ENDINGS:
        places = [f"in {folder}/" if folder else "at the root" for folder in (layout.instance, layout.classes) if folder is not None]
        return f"pictures lie {' or '.join(places)} of the archive"
    if ending in _OTHER_PICTURES:
        return "pictures are png, jpeg, webp or bmp"
    return "neither a picture nor a caption"


def _warning(reason: str, names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"left out, {reason}: {', '.join(names[:_MOST_NAMED])}{more}"
