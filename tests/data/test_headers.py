"""Headers read without Pillow: whatever is found is what Pillow finds, of files as people have them and of damaged ones."""
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from library.data import image_files
from library.data.headers import quick_header
from library.data.image_files import BadImage, read_header

ORIENTATION_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
OTHER_XMP = b'<x:xmpmeta><rdf:Description xmp:Rating="6"/></x:xmpmeta>'


def exif_of(orientation: int | None) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a maker of cameras, with a name that does not fit into the tag itself"
    exif[0x011A] = 72.0
    if orientation is not None:
        exif[0x0112] = orientation
    return exif.tobytes()


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 20), **options) -> bytes:
    stream = io.BytesIO()
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    Image.fromarray(pixels if mode.endswith("A") else pixels[..., :3]).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">HH", marker, len(data) + 2) + data + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, data: bytes, before: bytes = b"IDAT") -> bytes:
    at = png.index(before) - 4
    return png[:at] + struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) + png[at:]


def png_text(key: str, text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(key, text)
    return info


JPEG, PNG, WEBP = saved("jpeg"), saved("png"), saved("webp")
# What most files are like: these have to be quick.
PLAIN = {
    "jpeg": JPEG,
    "grey jpeg": saved("jpeg", "L"),
    "cmyk jpeg": saved("jpeg", "CMYK"),
    "progressive jpeg": saved("jpeg", progressive=True),
    "jpeg with a profile": saved("jpeg", icc_profile=bytes(100_000)),
    "jpeg with a comment": saved("jpeg", comment=b"drawn by hand"),
    "jpeg with xmp": with_segment(JPEG, 0xFFE1, b"http://ns.adobe.com/xap/1.0/\0" + OTHER_XMP),
    "jpeg with a gap": JPEG + bytes(20),
    "cut jpeg": JPEG[:-40],
    **{f"jpeg turned {value}": saved("jpeg", exif=exif_of(value)) for value in (None, *range(1, 9))},
    **{f"webp turned {value}": saved("webp", exif=exif_of(value)) for value in (None, 1, 6)},
    **{f"{mode} png": saved("png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")},
    "png with text": saved("png", pnginfo=png_text("parameters", "a frog")),
    "png with resolution": saved("png", dpi=(72, 72)),
    "cut png": PNG[:-20],
    "webp": WEBP,
    "lossless webp": saved("webp", lossless=True),
    "lossless webp with alpha": saved("webp", "RGBA", lossless=True),
    "lossless webp with alpha and exif": saved("webp", "RGBA", lossless=True, exif=exif_of(1)),
    "webp with a profile": saved("webp", icc_profile=bytes(101)),
    "webp with xmp": saved("webp", xmp=OTHER_XMP),
}
# What is rare: Pillow may have to tell.
RARE = {
    "jpeg turned by xmp": with_segment(JPEG, 0xFFE1, b"http://ns.adobe.com/xap/1.0/\0" + ORIENTATION_XMP),
    "jpeg with exif twice": with_segment(saved("jpeg", exif=exif_of(6)), 0xFFE1, exif_of(8)),
    "jpeg with orientation 9": saved("jpeg", exif=exif_of(9)),
    "jpeg with broken exif": saved("jpeg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x01\x12garbage"),
    "jpeg of photoshop": with_segment(JPEG, 0xFFED, b"Photoshop 3.0\x008BIM"),
    "jpeg with a short profile": with_segment(JPEG, 0xFFE2, b"ICC_PROFILE\0"),
    "jpeg with a short jfif": with_segment(JPEG, 0xFFE0, b"JFIF"),
    "jpeg with a short adobe": with_segment(JPEG, 0xFFEE, b"Adobe"),
    "jpeg with fill bytes": JPEG[:2] + b"\xff" + JPEG[2:],
    "mpo": saved("mpo", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    "png turned": saved("png", exif=exif_of(6)),
    "png turned behind its pixels": with_chunk(PNG, b"eXIf", exif_of(6).removeprefix(b"Exif\0\0"), before=b"IEND"),
    "png turned by text": with_chunk(PNG, b"tEXt", b"Raw profile type exif\0\nexif\n3\n" + exif_of(6).hex().encode()),
    "png turned by xmp": with_chunk(PNG, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + ORIENTATION_XMP),
    "png with a profile": saved("png", icc_profile=bytes(100)),
    "animated png": saved("png", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    "png of one colour with transparency": saved("png", transparency=(1, 2, 3)),
    "png with a wrong checksum": PNG.replace(b"IHDR\0\0\0\x28", b"IHDR\0\0\0\x29"),
    "webp turned by xmp": saved("webp", xmp=ORIENTATION_XMP),
    "webp with alpha": saved("webp", "RGBA"),
    "animated webp": saved("webp", save_all=True, append_images=[Image.new("RGB", (40, 20))]),
    "cut webp": WEBP[:-40],
    "gif": saved("gif", "P"),
    "bmp": saved("bmp"),
    "nothing": b"",
    "text": b"a frog on a stone",
}


def slowly(path: Path):
    """What Pillow finds, None if it refuses the file."""
    try:
        with image_files.opened(str(path)) as (file, image):
            return image_files._upright_size(image, file), image_files.looks_complete(file, image.format)
    except BadImage:
        return None


def quickly(path: Path):
    with path.open("rb") as file:
        return quick_header(file)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("headers") / "a.png"


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_read_without_pillow(path, name):
    path.write_bytes(PLAIN[name])
    assert quickly(path) == slowly(path)
    assert quickly(path) is not None


@pytest.mark.parametrize("name", RARE)
def test_of_the_others_nothing_wrong_is_said(path, name):
    path.write_bytes(RARE[name])
    assert quickly(path) in (None, slowly(path))
    if slowly(path) is not None:
        assert read_header(str(path)) == slowly(path)


def test_turned_pictures():
    assert quick_header(io.BytesIO(PLAIN["jpeg turned 6"])) == ((20, 40), True)
    assert quick_header(io.BytesIO(PLAIN["webp turned 6"])) == ((20, 40), True)
    assert quick_header(io.BytesIO(PLAIN["jpeg turned 3"])) == ((40, 20), True)


def test_enormous_pictures_are_left_to_pillow(path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow refuses twice as many
    path.write_bytes(JPEG)
    assert quickly(path) is None
    with pytest.raises(BadImage, match="enormous"):
        read_header(str(path))


FILES = {**PLAIN, **RARE}


@settings(max_examples=400)
@example("RGB png", [], 33)  # a whole header, but no pixels
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.one_of(st.integers(0, 60), st.integers(0, 700)), st.integers(0, 255)), max_size=3),
    st.one_of(st.none(), st.integers(0, 800)),
)
def test_damaged_files_are_never_read_otherwise_than_by_pillow(path, name, changes, kept):
    damaged = bytearray(FILES[name])
    for position, value in changes:
        if position < len(damaged):
            damaged[position] = value
    path.write_bytes(damaged[:kept])
    found = quickly(path)
    assert found is None or found == slowly(path)
