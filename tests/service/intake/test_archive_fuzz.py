"""Archives that nobody has written by hand: whatever comes, no file lies outside, and the only error is BadArchive."""
from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import HealthCheck, example, find, given, settings
from hypothesis import strategies as st
from zip_making import Raw, picture_bytes, zip_bytes

from service.intake import archives, zip_directory
from service.intake.archives import USUAL, unpack
from service.intake.layout import Candidate
from service.intake.pictures import BadPicture, Picture, sniff
from service.intake.zip_names import BadArchive
from service.intake.zip_reader import ZipLimits, ZipReader

MOST_ENTRY, MOST_TOTAL = 4000, 9000
LIMITS = replace(USUAL, zip=ZipLimits(entries=6, total_bytes=MOST_TOTAL, entry_bytes=MOST_ENTRY, ratio=20, ratio_from_bytes=500), reserve_bytes=0, caption_bytes=300)
GENERATED = re.compile(r"a/b/(input\.zip|job/(instance|class)/\d{5}\.(png|txt))")
CONTENTS = [b"", picture_bytes(), picture_bytes("JPEG")[:700], b"text", bytes(3000), bytes(range(256)) * 17, b"\x89PNG\r\n\x1a\n"]

names = st.one_of(
    st.sampled_from([
        "1.png", "1.txt", "2.png", "dataset_class/1.png", "dataset_class/1.txt", "frog/1.png", "frog/dataset_class/2.png", "a/", "../slip.png",
        "/slip.png", "frog/../../slip.png", "..\\slip.png", "C:slip.png", "a\0.png", "e\u0301.png", "\u00e9.png", "..", ".", "", "x.zip", b"\xff.png",
    ]),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass") + b".png"),
    st.binary(max_size=20),
)  # fmt: skip
number = st.one_of(st.none(), st.integers(0, 70), st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF]))
entries = st.builds(
    Raw,
    name=names,
    data=st.sampled_from(CONTENTS),
    method=st.sampled_from([8, 8, 8, 0, 0, 9, 99]),
    flags=st.sampled_from([0, 0x0800, 0x0800, 0x0808, 0x0801, 0x2000]),
    mode=st.sampled_from([0, 0o100644, 0o100644, 0o040755, 0o120777]),
    crc=st.one_of(st.none(), st.none(), st.none(), st.just(7)),
    size=st.one_of(st.none(), st.none(), st.none(), number),
    packed_bytes=st.one_of(st.none(), st.none(), st.none(), number),
    start=st.one_of(st.none(), st.none(), st.none(), number),
    extra=st.one_of(st.just(b""), st.just(b""), st.binary(max_size=30), st.just(b"\x01\x00\x08\x00" + bytes(8))),
)
honest = st.builds(Raw, name=st.sampled_from(["1.png", "2.png", "1.txt", "dataset_class/1.png"]), data=st.sampled_from(CONTENTS), method=st.sampled_from([0, 8]))


@st.composite
def archive_bytes(draw: st.DrawFn) -> bytes:
    """An archive of a few entries, most of which lie about something; sometimes with damage."""
    some = draw(st.lists(st.one_of(honest, entries), max_size=5))
    data = bytearray(zip_bytes(some, comment=draw(st.sampled_from([b"", b"", b"PK\x05\x06 and more letters"])), zip64=draw(st.booleans())))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=3)):
        data[place] = value
    cut = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, len(data))))
    return bytes(data if cut is None else data[:cut])


class CopyingChecker:
    """In place of the worker process, which would take a second for each example: takes what looks like a picture as it is."""

    def __init__(self, limits: object):
        pass

    def __enter__(self) -> CopyingChecker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def rewrite(self, source: Path, destination: Path) -> Picture:
        data = source.read_bytes()
        assert len(data) <= MOST_ENTRY
        if sniff(data) is None:
            raise BadPicture("no picture")
        destination.write_bytes(data)
        return Picture(1, 1, "PNG")


def outcome(data: bytes, root: Path) -> str:
    """Unpacks deep below the folder: "" if all is as it has to be, else what is not. Errors other than BadArchive pass."""
    folder = root / "a" / "b"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.zip").write_bytes(data)
    try:
        unpack(folder / "input.zip", folder / "job/instance", folder / "job/class", LIMITS)
    except BadArchive as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        found = files_below(root)
        clean(root)
        return "" if found == ["a/b/input.zip"] else f"refused, and left {found}"
    strange = [name for name in files_below(root) if not GENERATED.fullmatch(name)]
    written = sum(path.stat().st_size for path in (folder / "job").rglob("*") if path.is_file())
    clean(root)
    return f"wrote {strange}" if strange else f"wrote {written} bytes" if written > MOST_TOTAL else ""


def files_below(root: Path) -> list[str]:
    """All that is no plain folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir())


def clean(root: Path) -> None:
    """Makes the folder ready for the next example; most wrote nothing, and are fast."""
    for path in (*root.glob("[!a]*"), *root.glob("a/[!b]*"), *root.glob("a/b/[!i]*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PictureChecker", CopyingChecker)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=archive_bytes())
@example(data=zip_bytes([Raw("1.png", picture_bytes()), Raw("1.txt", b"text")]))
@example(data=zip_bytes([Raw("../slip.png", picture_bytes())]))
def test_nothing_lies_outside_and_nothing_else_is_raised(tmp_path: Path, data: bytes) -> None:
    assert outcome(data, tmp_path) == ""


def test_a_planted_zip_slip_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property above sees an unpacker that believes names, so it would see ours."""

    def believing_name(raw: bytes, is_utf_8: bool) -> tuple[str, bool]:
        name = raw.decode("utf-8", "replace").replace("\0", "_")
        return name, name.endswith("/")

    def believing_take(self: archives._Unpacking, candidate: Candidate, path: Path) -> archives.PictureFile:
        named = path.parent / candidate.picture.name
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_bytes(b"".join(self._reader.blocks(candidate.picture)))
        shutil.copy(named, path)
        return archives.PictureFile(path, candidate.picture.name, 1, 1, None)

    monkeypatch.setattr(zip_directory, "checked_name", believing_name)
    monkeypatch.setattr(archives._Unpacking, "_take", believing_take)

    def slips(data: bytes) -> bool:
        try:
            return outcome(data, tmp_path).startswith("wrote ")
        except OSError:  # a name that no file can have
            return False

    assert slips(find(archive_bytes(), slips, settings=settings(max_examples=700, derandomize=True, database=None)))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(honest, max_size=4, unique_by=lambda entry: entry.name), st.booleans())
def test_what_is_honest_is_read_to_the_last_byte(tmp_path: Path, some: list[Raw], zip64: bool) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_bytes(some, zip64=zip64))
    with ZipReader(path, ZipLimits()) as reader:
        assert [(entry.name, b"".join(reader.blocks(entry))) for entry in reader.entries] == [(entry.name, entry.data) for entry in some]
