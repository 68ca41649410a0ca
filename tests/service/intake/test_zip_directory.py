"""The directory of a zip file: what honest programs write is read, every lie in it is found."""
from __future__ import annotations

import io
import struct
import zipfile

import pytest
from zip_making import Raw, deflated, zip_bytes

from service.intake.zip_directory import Entry, read_directory
from service.intake.zip_names import BadArchive


def entries_of(data: bytes, most: int = 5000) -> list[Entry]:
    return read_directory(io.BytesIO(data), most)


def refusal(data: bytes, most: int = 5000) -> str:
    with pytest.raises(BadArchive) as caught:
        entries_of(data, most)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Unseekable(io.RawIOBase):
    """What a program writes to when it packs into a pipe: sizes follow the data."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


def test_reads_what_zipfile_writes() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment with PK\x05\x06 in it, and some letters more than the end has"
        archive.mkdir("frog")
        archive.writestr("frog/1.png", b"one" * 100)
        archive.writestr("frog/größe.png", b"two", zipfile.ZIP_STORED)
        with archive.open("frog/long.png", "w", force_zip64=True) as file:
            file.write(b"three")
    found = entries_of(out.getvalue())
    assert [(entry.name, entry.is_folder, entry.size) for entry in found] == [
        ("frog", True, 0), ("frog/1.png", False, 300), ("frog/größe.png", False, 3), ("frog/long.png", False, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("force_zip64", [False, True])
def test_reads_what_was_packed_into_a_pipe(force_zip64: bool) -> None:
    pipe = Unseekable()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w", force_zip64=force_zip64) as file:
        file.write(b"content" * 9)
    assert [(entry.name, entry.size) for entry in entries_of(pipe.data)] == [("a.png", 63)]


def test_an_empty_archive_has_no_entries() -> None:
    assert entries_of(zip_bytes([])) == []


def test_reads_a_zip64_end_that_agrees() -> None:
    assert [entry.name for entry in entries_of(zip_bytes([Raw("a", b"a")], zip64=True))] == ["a"]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("./a//b.png", "a/b.png"),
        ("e\u0301.png", "\u00e9.png"),  # NFD, as a Mac writes it
        (b"gr\x94\xe1e.png", "größe.png"),  # code page 437
        ("蛙/青蛙 🐸.png", "蛙/青蛙 🐸.png"),
        ("..a/b..png", "..a/b..png"),
        ("name\u202egnp.exe", "name\u202egnp.exe"),
    ],
)
def test_names_are_normalised(raw: str | bytes, name: str) -> None:
    flags = 0x0800 if isinstance(raw, str) else 0
    assert entries_of(zip_bytes([Raw(raw, b"x", flags=flags)]))[0].name == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../a.png", "leads out"),
        ("a/../../b.png", "leads out"),
        ("a/..", "leads out"),
        ("", "leads out"),
        ("/", "path from a root"),
        ("/etc/passwd", "path from a root"),
        ("//host/share", "path from a root"),
        ("C:/a.png", "path from a root"),
        ("c:a.png", "path from a root"),
        ("..\\a.png", "backslash"),
        ("C:\\a.png", "backslash"),
        ("\\\\?\\C:\\a", "backslash"),
        ("a\0.png", "control characters"),
        ("a.png\0.txt", "control characters"),
        ("a\n.png", "control characters"),
        ("a\x85.png", "control characters"),
        ("a" * 256, "longer than"),
        ("é" * 128, "longer than"),
        ("ab/" * 400 + "c", "longer than"),
        (b"\xff.png", "no UTF-8"),
        (b"\xed\xa0\x80.png", "no UTF-8"),  # half of a surrogate pair
        (b"\xc0\xae\xc0\xae/a.png", "no UTF-8"),  # '..' in too many bytes
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(name: str | bytes, words: str) -> None:
    assert words in refusal(zip_bytes([Raw(name, b"x")]))


def test_a_name_in_too_many_bytes_is_never_two_dots() -> None:
    """Without the flag for UTF-8 such bytes are letters of the old code page."""
    (entry,) = entries_of(zip_bytes([Raw(b"\xc0\xae\xc0\xae/a.png", b"x", flags=0)]))
    assert entry.name == "└«└«/a.png"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Raw("a", b"x", mode=0o120777), "link or a device"),
        (Raw("a", b"x", mode=0o020644), "link or a device"),
        (Raw("a", b"x", mode=0o010644), "link or a device"),
        (Raw("a", b"x", mode=0o060644), "link or a device"),
        (Raw("a", b"x", mode=0o140644), "link or a device"),
        (Raw("a", b"x", mode=0o040755), "link or a device"),  # a folder by its mode, a file by its name
        (Raw("a/", b"x"), "folder with content"),
        (Raw("a", b"x", flags=0x0801), "encrypted"),
        (Raw("a", b"x", flags=0x0840), "encrypted"),
        (Raw("a", b"x", flags=0x2800), "encrypted"),
        (Raw("a", b"x", local_flags=0x0801), "header is not that"),
        (Raw("a", b"x", flags=0x0820), "method 8"),
        (Raw("a", b"x", method=14), "method 14"),
        (Raw("a", b"x", method=99), "method 99"),
        (Raw("a", b"x", local_name=b"b"), "header is not that"),
        (Raw("a", b"x", local_name=b"../../b"), "header is not that"),
        (Raw("a", b"x", local_size=2), "different sizes"),
        (Raw("a", b"x", local_flags=0x0808), "different sizes"),  # sizes follow, and stand there all the same, and are others
        (Raw("a", b"x", method=0, size=2), "contradict"),
        (Raw("a", b"x", packed_bytes=1 << 20), "reaches into its directory"),
        (Raw("a", b"x", start=4), "cut short"),
        (Raw("a", b"x", start=1 << 30), "cut short"),
        (Raw("a", b"x", disk=1), "several parts"),
        (Raw("a", b"x", size=0xFFFFFFFF), "zip64 sizes are missing"),
        (Raw("a", b"x", size=0xFFFFFFFF, extra=struct.pack("<2HL", 1, 4, 1)), "zip64 sizes are missing"),
        (Raw("a", b"x", packed_bytes=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 1 << 62)), "reaches into its directory"),
        (Raw("a", b"x", start=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 1 << 63)), "cut short"),
        (Raw("a", b"x", size=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 1) * 2), "damaged extra fields"),
        (Raw("a", b"x", extra=struct.pack("<2H", 9, 50)), "damaged extra fields"),
    ],
)
def test_entries_that_lie_are_refused(entry: Raw, words: str) -> None:
    data = zip_bytes([Raw("first", b"1"), entry])
    if entry.local_flags == 0x0808:
        data = zip_bytes([Raw("first", b"1"), Raw("a", b"x", local_flags=0x0808, local_size=7)])
    assert words in refusal(data)


def test_a_zip64_size_that_is_true_is_read() -> None:
    entry = Raw("a", b"x" * 9, size=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 9))
    assert entries_of(zip_bytes([entry]))[0].size == 9


@pytest.mark.parametrize("place", [8, 10, 12, 16])  # count here, count, length and start of the directory in the short end
def test_a_zip64_end_that_contradicts_the_short_one_is_refused(place: int) -> None:
    data = bytearray(zip_bytes([Raw("a", b"x"), Raw("b", b"y")], zip64=True))
    data[len(data) - 22 + place] ^= 1
    assert "contradict each other" in refusal(bytes(data))


def test_two_entries_of_one_name_are_refused() -> None:
    assert "there twice" in refusal(zip_bytes([Raw("a", b"1"), Raw("a", b"2")]))
    assert "there twice" in refusal(zip_bytes([Raw("é", b"1"), Raw("e\u0301", b"2")]))
    assert "there twice" in refusal(zip_bytes([Raw("a/b", b"1"), Raw("a//b", b"2")]))
    assert len(entries_of(zip_bytes([Raw("a/", mode=0o040755), Raw("a/", mode=0o040755), Raw("a/b")]))) == 3


def test_entries_that_share_their_data_are_refused() -> None:
    """42.zip and its kind: thousands of entries, one piece of data."""
    shared = Raw("a", b"0" * 1000, start=0)
    assert "overlaps" in refusal(zip_bytes([shared, Raw("a", b"0" * 1000, start=0, is_written=False)]))


def test_quoted_overlap_is_refused() -> None:
    """David Fifield's bomb: a stored block of the first file quotes the header of the second, so that both have its data."""
    kernel = Raw("b", b"0" * 5000)
    local_b = zip_bytes([kernel])[: 30 + 1 + len(deflated(kernel.data))]
    header_b = local_b[:31]
    quote = b"\x00" + struct.pack("<2H", len(header_b), len(header_b) ^ 0xFFFF) + header_b
    packed_a = quote + local_b[31:]
    a = Raw("a", header_b + kernel.data, packed=packed_a)
    b = Raw("b", kernel.data, start=31 + 5, is_written=False)
    assert [entry.name for entry in entries_of(zip_bytes([a]))] == ["a"]  # each alone would be right
    assert "overlaps" in refusal(zip_bytes([a, b]))


def test_what_is_cut_or_surrounded_is_refused() -> None:
    data = zip_bytes([Raw("a", b"x" * 100), Raw("b", b"y" * 100)])
    for length in range(len(data)):
        refusal(data[:length])
    assert "is no zip archive" in refusal(data + b"tail")
    assert "not where its end says" in refusal(b"MZ" + data)
    assert "does not begin like" in refusal(zip_bytes([Raw("a", b"x")], before=b"%PDF-1.4"))
    assert "is no zip archive" in refusal(b"")


def test_counts_that_lie_are_refused() -> None:
    entries = [Raw("a", b"x"), Raw("b", b"y")]
    assert "fewer entries" in refusal(zip_bytes(entries, count=3))
    assert "more entries" in refusal(zip_bytes(entries, count=1))
    assert "at most 1" in refusal(zip_bytes(entries), most=1)
    assert "several parts" in refusal(zip_bytes(entries)[:-18] + struct.pack("<4H2LH", 1, 1, 2, 2, 94, 66, 0))


def test_a_directory_of_gigabytes_is_not_read() -> None:
    """The length that the end names, with as little memory as before."""

    class Vast(io.BytesIO):
        def seek(self, place: int, whence: int = 0) -> int:
            return 20 << 20 if whence == 2 else super().seek(place, whence)

        def read(self, count: int | None = -1) -> bytes:
            assert count is not None and 0 <= count < 1 << 17
            end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, (20 << 20) - 22, 0, 0)
            return (b"\0" * count + end)[-count:]

    with pytest.raises(BadArchive, match="directory is too long"):
        read_directory(Vast(), 5000)
