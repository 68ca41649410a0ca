"""Pictures from outside: what is read as what, what is refused, and that a worker that dies takes nobody with it."""
from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from PIL import Image
from zip_making import picture_bytes

from service.intake.picture_worker import answer
from service.intake.pictures import USUAL, BadPicture, Picture, PictureChecker, sniff
from service.storage.space import DiskFull

SMALL = replace(USUAL, max_pixels=1_000_000)


@pytest.fixture(scope="module")
def checker() -> Iterator[PictureChecker]:
    with PictureChecker(SMALL) as checker:
        yield checker


@pytest.fixture
def rewrite(checker: PictureChecker, tmp_path: Path):
    def rewritten(data: bytes) -> tuple[Picture, Image.Image]:
        (tmp_path / "source").write_bytes(data)
        found = checker.rewrite(tmp_path / "source", tmp_path / "out.png")
        image = Image.open(tmp_path / "out.png")
        image.load()
        assert image.format == "PNG" and image.size == (found.width, found.height) and image.info == {}
        return found, image

    return rewritten


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "mode", "written"),
    [
        ("PNG", "RGB", "RGB"), ("PNG", "RGBA", "RGBA"), ("PNG", "L", "RGB"), ("PNG", "LA", "RGBA"), ("PNG", "1", "RGB"), ("PNG", "P", "RGB"),
        ("JPEG", "RGB", "RGB"), ("JPEG", "L", "RGB"), ("JPEG", "CMYK", "RGB"), ("WEBP", "RGB", "RGB"), ("WEBP", "RGBA", "RGBA"),
        ("BMP", "RGB", "RGB"), ("BMP", "L", "RGB"), ("BMP", "1", "RGB"),
    ],
)  # fmt: skip
def test_every_kind_comes_out_as_its_pixels(rewrite, kind: str, mode: str, written: str) -> None:
    data = picture_bytes(kind, (80, 64), mode)
    found, image = rewrite(data)
    assert found == Picture(80, 64, kind) and sniff(data) == kind and image.mode == written
    with Image.open(io.BytesIO(data)) as original:
        assert list(image.convert("RGB").getdata()) == list(original.convert("RGB").getdata())


def test_sixteen_bits_of_grey_are_scaled(rewrite) -> None:
    image = Image.new("I;16", (64, 64), 257 * 100)
    _, found = rewrite(saved(image, "PNG"))
    assert found.getpixel((0, 0)) == (100, 100, 100)


def test_a_transparent_colour_becomes_transparency(rewrite) -> None:
    _, found = rewrite(saved(Image.new("RGB", (64, 64), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert found.mode == "RGBA" and found.getpixel((0, 0))[3] == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_upright_and_exif_goes(rewrite, kind: str) -> None:
    image = Image.new("RGB", (100, 70), "black")
    image.paste("red", (0, 0, 50, 70))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    exif[0x010E] = "where I live"
    data = saved(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}))
    found, upright = rewrite(data)
    assert (found.width, found.height) == (70, 100)
    assert upright.getpixel((35, 10))[0] > 200 and upright.getpixel((35, 90))[0] < 50  # what was left is on top
    assert not upright.getexif()


def test_a_small_copy_tells_the_size_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(saved(Image.new("RGB", (400, 200)), "JPEG"))
    (tmp_path / "small").write_bytes(saved(Image.new("RGB", (80, 70)), "PNG"))
    with PictureChecker(replace(SMALL, largest_side=100)) as checker:
        found = [checker.rewrite(tmp_path / name, tmp_path / f"{name}.png") for name in ("large", "small")]
    assert [(picture.width, picture.height) for picture in found] == [(400, 200), (80, 70)]
    assert [Image.open(tmp_path / f"{name}.png").size for name in ("large", "small")] == [(100, 50), (80, 70)]


def test_of_an_animation_the_first_frame_counts(rewrite) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        _, image = rewrite(saved(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})))
        assert getattr(image, "n_frames", 1) == 1 and image.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


GOOD = picture_bytes("PNG")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "content is not"),
        (b"GIF89a" + bytes(100), "content is not"),
        (b"II*\0" + bytes(100), "content is not"),
        (b"%!PS-Adobe", "content is not"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "content is not"),
        (b"RIFF\0\0\0\0WAVE", "content is not"),
        (GOOD[:-40], "damaged"),
        (GOOD[:50] + bytes([GOOD[50] ^ 1]) + GOOD[51:], "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff" + bytes(50), "damaged"),
        (b"BM" + bytes(50), "damaged"),
        (picture_bytes("JPEG")[:300], "damaged"),
        (picture_bytes(size=(63, 64)), "63x64"),
        (picture_bytes(size=(64, 1)), "64x1"),
        (picture_bytes(size=(1, 1)), "1x1"),
        (png(30_000, 30_000, bytes(90_001 * 20)), "more than 1000000 pixels"),
        (png(1001, 1000, bytes(3004 * 1000)), "more than 1000000 pixels"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(64, 64, bytes(193 * 64), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 << 20)))), "damaged"),
    ],
)
def test_what_is_no_honest_picture_is_refused(checker: PictureChecker, tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "source").write_bytes(data)
    with pytest.raises(BadPicture, match=words):
        checker.rewrite(tmp_path / "source", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit for a process")
def test_a_picture_that_needs_too_much_memory_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(png(6000, 6000, bytes(18_001)))  # a row of it; there has to be room for all
    (tmp_path / "small").write_bytes(GOOD)
    with PictureChecker(replace(USUAL, memory_bytes=200 << 20)) as checker:
        with pytest.raises(BadPicture, match="too much memory"):
            checker.rewrite(tmp_path / "large", tmp_path / "out.png")
        assert checker.rewrite(tmp_path / "small", tmp_path / "out.png").width == 64


def test_a_worker_that_takes_too_long_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(GOOD)
    with PictureChecker(replace(USUAL, wall_seconds=0.1)) as checker:
        psutil.Process(checker._start().pid).suspend()
        with pytest.raises(BadPicture, match="memory or time"):
            checker.rewrite(tmp_path / "picture", tmp_path / "out.png")
    with PictureChecker() as checker:
        checker.rewrite(tmp_path / "picture", tmp_path / "out.png")
        assert checker._worker is not None
        checker._worker.kill()
        checker._worker.wait()
        with pytest.raises(BadPicture, match="memory or time"):
            checker.rewrite(tmp_path / "picture", tmp_path / "out.png")
        assert checker.rewrite(tmp_path / "picture", tmp_path / "out.png").width == 64


def test_the_service_loads_no_pillow() -> None:
    code = "import sys, service.intake.archives, service.intake.fetch; print('PIL' in sys.modules, 'boto3' in sys.modules, 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["False", "False", "False"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to look at the environment of a process")
def test_the_worker_has_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    (tmp_path / "picture").write_bytes(GOOD)
    with PictureChecker() as checker:
        checker.rewrite(tmp_path / "picture", tmp_path / "out.png")
        assert checker._worker is not None
        assert b"hidden" not in Path(f"/proc/{checker._worker.pid}/environ").read_bytes()


def test_a_full_disk_is_no_fault_of_the_picture(rewrite, checker: PictureChecker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    source = tmp_path / "source"
    source.write_bytes(picture_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        answered = answer({"source": str(source), "destination": str(tmp_path / "out.png")}, asdict(SMALL))
        assert answered == {"problem": "it cannot be written", "is_full": True}
        patch.setattr(PictureChecker, "_ask", lambda *_: answered)
        with pytest.raises(DiskFull):
            checker.rewrite(source, tmp_path / "out.png")
    rewrite(picture_bytes())
