"""Archives of pictures: what is taken, what is left out, what is refused; nothing is ever written but generated names."""
from __future__ import annotations

import io
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from zip_making import Raw, deflated, picture_bytes, zip_bytes

from service.intake.archives import USUAL, ArchiveLimits, Unpacked, unpack
from service.intake.layout import PLAIN, Layout
from service.intake.zip_names import BadArchive
from service.intake.zip_reader import ZipLimits, ZipReader

PNG, JPEG = picture_bytes("PNG"), picture_bytes("JPEG")
LIMITS = replace(USUAL, reserve_bytes=0)


def unpacked(tmp_path: Path, entries: list[Raw], limits: ArchiveLimits = LIMITS, layout: Layout = PLAIN, has_classes: bool = True) -> Unpacked:
    archive = tmp_path / "input.zip"
    archive.write_bytes(zip_bytes(entries))
    return unpack(archive, tmp_path / "job/instance", tmp_path / "job/class" if has_classes else None, limits, layout)


def refusal(tmp_path: Path, entries: list[Raw], limits: ArchiveLimits = LIMITS) -> str:
    with pytest.raises(BadArchive) as caught:
        unpacked(tmp_path, entries, limits)
    assert not files_below(tmp_path / "job")  # not even what was right before the mistake
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_and_captions_get_generated_names(tmp_path: Path) -> None:
    found = unpacked(
        tmp_path,
        [
            Raw("z.JPG", JPEG),
            Raw("a frog.png", PNG),
            Raw("a frog.txt", "\ufeffa frog — \"sks\" --w 512".encode()),
            Raw("dataset_class/", mode=0o040755),
            Raw("dataset_class/c.png", PNG),
            Raw("dataset_class/c.caption", b"a class"),
            Raw("dataset_class/c.txt", b"the one that counts"),
        ],
    )
    assert files_below(tmp_path / "job") == ["class/00001.png", "class/00001.txt", "instance/00001.png", "instance/00001.txt", "instance/00002.png"]
    assert [(file.path.name, file.original_name, file.width, file.height) for file in found.instance] == [
        ("00001.png", "a frog.png", 64, 64), ("00002.png", "z.JPG", 64, 64),
    ]  # fmt: skip
    assert found.instance[0].caption == tmp_path / "job/instance/00001.txt"
    assert found.instance[0].caption.read_text(encoding="utf-8") == 'a frog — "sks" --w 512'
    assert (tmp_path / "job/class/00001.txt").read_text(encoding="utf-8") == "the one that counts"
    assert found.instance[1].caption is None and found.classes[0].original_name == "dataset_class/c.png"
    assert found.warnings == ["only 2 of 3 or more pictures that are needed for good results"]


def test_one_folder_around_everything_is_no_matter(tmp_path: Path) -> None:
    found = unpacked(
        tmp_path,
        [
            Raw("my frog/1.png", PNG),
            Raw("my frog/1.caption", b"one"),
            Raw("my frog/dataset_class/2.png", PNG),
            Raw("__MACOSX/my frog/._1.png", PNG),
            Raw("my frog/Thumbs.db", b"x"),
            Raw("my frog/.DS_Store", b"x"),
            Raw("my frog/.hidden/3.png", PNG),
            Raw("README.md", b"x"),
        ],
    )
    assert len(found.instance) == len(found.classes) == 1 and found.instance[0].caption
    assert found.warnings[0] == "left out, neither a picture nor a caption: README.md"
    assert len(found.warnings) == 2


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    found = unpacked(
        tmp_path,
        [
            *(Raw(f"{letter}.png", PNG) for letter in "abc"),
            *(Raw(f"notes{number}.doc", b"x") for number in range(5)),
            Raw("more.zip", zip_bytes([Raw("d.png", PNG)])),
            Raw("sub/e.png", PNG),
            Raw("f.gif", b"GIF89a"),
            Raw("lonely.txt", b"words"),
            Raw("g.png", b"GIF89a" * 20),
            Raw("h.png", picture_bytes(size=(63, 200))),
            Raw("a.txt", b"\xff\xfe words in UTF-16"),
            Raw("b.txt", b"nul\0"),
            Raw("c.txt", b"x" * (64 * 1024 + 1)),
        ],
    )
    assert [file.original_name for file in found.instance] == ["a.png", "b.png", "c.png"]
    assert all(file.caption is None for file in found.instance) and files_below(tmp_path / "job/instance") == ["00001.png", "00002.png", "00003.png"]
    assert sorted(found.warnings) == [
        "left out, a caption without a picture: lonely.txt",
        "left out, neither a picture nor a caption: more.zip, notes0.doc, notes1.doc and 3 more",
        "left out, pictures are png, jpeg, webp or bmp: f.gif",
        "left out, pictures lie at the root or in dataset_class/ of the archive: sub/e.png",
        "left out: a.txt: captions are text in UTF-8",
        "left out: b.txt: the caption has control characters",
        "left out: c.txt: a caption has at most 65536 bytes",
        "left out: g.png: its content is not png, jpeg, webp or bmp",
        "left out: h.png: it has 63x200 pixels; at least 64x64 are needed",
    ]


def test_the_layout_of_another_client(tmp_path: Path) -> None:
    layout = Layout("dataset/trainingData", "dataset/classData", known=("finetune_config.yaml",))
    entries = [Raw("finetune_config.yaml", b"x"), Raw("other.yaml", b"x"), Raw("dataset/trainingData/1.png", PNG), Raw("dataset/classData/2.png", PNG)]
    found = unpacked(tmp_path, entries, layout=layout)
    assert [file.original_name for file in (*found.instance, *found.classes)] == ["dataset/trainingData/1.png", "dataset/classData/2.png"]
    assert found.warnings[0] == "left out, neither a picture nor a caption: other.yaml"


def test_an_archive_of_one_kind_only(tmp_path: Path) -> None:
    found = unpacked(tmp_path, [Raw("class pictures/1.png", PNG)], has_classes=False)
    assert len(found.instance) == 1 and found.classes == [] and files_below(tmp_path / "job") == ["instance/00001.png"]


def test_folders_are_made_anew(tmp_path: Path) -> None:
    for name in ("job/instance", "job/class", "job/.unpacking/instance"):  # the last: a process was killed
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "00007.png").write_bytes(b"old")
    unpacked(tmp_path, [Raw("1.png", PNG)])
    assert files_below(tmp_path / "job") == ["instance/00001.png"]


def test_without_a_picture_of_the_subject_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "job/instance").mkdir(parents=True)
    (tmp_path / "job/instance/00007.png").write_bytes(b"old")
    with pytest.raises(BadArchive, match=r"no usable picture .* at the root; left out: a.png: it is damaged"):
        unpacked(tmp_path, [Raw("dataset_class/1.png", PNG), Raw("a.png", PNG[:-30])])
    assert files_below(tmp_path / "job") == ["instance/00007.png"]


def test_progress_is_told_and_may_stop(tmp_path: Path) -> None:
    archive = tmp_path / "input.zip"
    archive.write_bytes(zip_bytes([Raw("1.png", PNG), Raw("2.png", PNG)]))
    told: list[tuple[int, int]] = []
    unpack(archive, tmp_path / "job/instance", None, LIMITS, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 2) and told[-1] == (2, 2)

    class Canceled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        if done:
            raise Canceled

    with pytest.raises(Canceled):
        unpack(archive, tmp_path / "other/instance", None, LIMITS, progress=cancel)
    assert files_below(tmp_path / "other") == []


# --- attacks ---


def zeros(length: int) -> bytes:
    """A deflate stream of so many zeros, made in no time: one block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + again * ((length >> 20) - 1) + packer.flush()


@pytest.mark.parametrize("told", [100, 64 << 20, 0xFFFFFFFE])
def test_ten_gigabytes_of_zeros_are_not_unpacked(tmp_path: Path, told: int) -> None:
    """Whatever size its header tells."""
    bomb = Raw("b.png", packed=zeros(10 << 30), size=told, crc=0)
    archive = tmp_path / "input.zip"
    archive.write_bytes(zip_bytes([Raw("a.png", PNG), bomb]))
    with ZipReader(archive, ZipLimits()) as reader, pytest.raises(BadArchive):
        for _ in reader.blocks(reader.entries[1]):
            pass
    assert reader.unpacked_bytes < 2 << 20
    refusal(tmp_path, [Raw("a.png", PNG), bomb])


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ZipLimits(entry_bytes=1000), "larger than 1000 bytes"),
        (ZipLimits(total_bytes=5000), "more than 5000 bytes"),
        (ZipLimits(ratio=2, ratio_from_bytes=500), "more than 2 times"),
        (ZipLimits(entries=2), "at most 2"),
    ],
)
def test_limits_hold(tmp_path: Path, limits: ZipLimits, words: str) -> None:
    noise = bytes(range(256)) * 8
    packed = deflated(noise)
    entries = [Raw(f"{number}.png", noise, packed=packed) for number in range(3)]
    assert words in refusal(tmp_path, entries, replace(LIMITS, zip=limits))


def test_what_is_written_has_a_limit_too(tmp_path: Path) -> None:
    assert "take more than 100 bytes" in refusal(tmp_path, [Raw("1.png", PNG)], replace(LIMITS, written_bytes=100))


@pytest.mark.parametrize("method", [0, 8])
def test_damage_is_found(tmp_path: Path, method: int) -> None:
    good = Raw("1.png", PNG, method=method)
    packed = deflated(PNG) if method else PNG
    for bad, words in (
        (replace(good, crc=zlib.crc32(PNG) ^ 1), "is damaged"),
        (replace(good, data=PNG, packed=packed[:-5]), "1.png"),
        (replace(good, packed=packed + b"more"), "1.png"),
        (replace(good, size=len(PNG) - 1), "1.png"),
        (replace(good, size=len(PNG) + 1), "1.png"),
        (replace(good, packed=bytes([packed[0] ^ 0xFF]) + packed[1:]), "1.png"),
    ):
        assert words in refusal(tmp_path, [Raw("0.png", PNG), bad])


@pytest.mark.parametrize("name", ["../slip.png", "/slip.png", "a/../../slip.png", "..\\slip.png", "C:\\slip.png", "sl\0ip.png"])
def test_zip_slip(tmp_path: Path, name: str) -> None:
    refusal(tmp_path, [Raw("0.png", PNG), Raw(name, PNG)])
    assert files_below(tmp_path) == ["input.zip"]


def test_a_link_is_refused(tmp_path: Path) -> None:
    assert "link" in refusal(tmp_path, [Raw("0.png", PNG), Raw("1.png", b"/etc/passwd", mode=0o120777)])


def test_polyglots(tmp_path: Path) -> None:
    """A picture that is an archive, too, is no archive; in one, it comes out as pixels and nothing else."""
    archive = tmp_path / "input.zip"
    archive.write_bytes(zip_bytes([Raw("1.png", PNG)], before=PNG))
    with pytest.raises(BadArchive, match="begin"):
        unpack(archive, tmp_path / "job/instance", None, LIMITS)
    script = b"<script>alert(1)</script><?php system('id'); ?>"
    for number, hidden in enumerate((JPEG + zip_bytes([Raw("1.png", PNG)]) + script, with_comment(script), PNG + script, b"BM" + script + PNG)):
        found = unpacked(tmp_path, [Raw("0.png", PNG), Raw("1.jpg", hidden)])
        assert len(found.instance) == (1 if number == 3 else 2)
        written = b"".join(path.read_bytes() for path in (tmp_path / "job").rglob("*.png"))
        assert b"script" not in written and b"PK\x03\x04" not in written


def with_comment(text: bytes) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(JPEG)) as image:
        image.save(out, "JPEG", comment=text)
    return out.getvalue()
