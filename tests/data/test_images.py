"""Odd but valid pictures give the right pixels, bad files a BadImage, and resizing does what its name says."""
from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from library.data.image_files import EXTENSIONS, BadImage, check_pixels, read_header
from library.data.images import centre_crop, fit_image, read_image, resize

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def corners() -> Image.Image:
    """40x20 with a red top left, a green top right and a blue bottom left quarter on white."""
    pixels = np.full((20, 40, 3), 255, np.uint8)
    pixels[:10, :20], pixels[:10, 20:], pixels[10:, :20] = RED, GREEN, BLUE
    return Image.fromarray(pixels)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A header without any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, orientation, kind):
    path = str(tmp_path / f"a.{kind}")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What a camera stores for this upright picture: the inverse of what the orientation asks for.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](np.asarray(corners()))
    quality = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}, "png": {}}[kind]
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **quality)
    assert read_header(path).size == (40, 20)
    assert np.abs(read_image(path).astype(int) - np.asarray(corners())).max() <= 3


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    path = tmp_path / "a.png"
    corners().save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = path.read_bytes()
    end = content.rindex(b"IEND") - 4
    path.write_bytes(content[:end] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[end:])
    assert read_header(str(path)).size == (20, 40)
    assert (read_image(str(path)) == np.rot90(np.asarray(corners()), -1)).all()


def test_broken_exif_is_no_reason_to_refuse(tmp_path):
    path = str(tmp_path / "a.jpg")
    corners().save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert read_header(path).size == (40, 20)
    assert read_image(path).shape == (20, 40, 3)


def test_transparency_lies_over_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).save(path)
    assert read_image(path).tolist() == [[list(RED), list(WHITE), [127, 127, 127]]]
    assert read_image(path, keep_alpha=True).tolist() == pixels.tolist()


def test_an_image_without_alpha_is_opaque(tmp_path):
    path = str(tmp_path / "a.png")
    corners().save(path)
    found = read_image(path, keep_alpha=True)
    assert found.shape == (20, 40, 4) and (found[..., 3] == 255).all()
    assert (found[..., :3] == np.asarray(corners())).all()


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    path = str(tmp_path / "a.png")
    image.save(path)
    assert read_image(path).tolist() == [[list(RED), list(GREEN), list(BLUE)]]
    image.save(path, transparency=1)
    assert read_image(path).tolist() == [[list(RED), list(WHITE), list(BLUE)]]
    image.save(path, transparency=bytes([255, 0, 127]))
    assert read_image(path).tolist() == [[list(RED), list(WHITE), [128, 128, 255]]]
    assert read_image(path, keep_alpha=True)[0, 1].tolist() == [*GREEN, 0]


def test_one_transparent_colour(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.array([[RED, GREEN]], np.uint8)).save(path, transparency=RED)
    assert read_image(path).tolist() == [[list(WHITE), list(GREEN)]]


def test_grey_of_16_bits_is_scaled_not_clipped(tmp_path):
    path = str(tmp_path / "a.png")
    values = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    Image.fromarray(values).save(path)
    assert read_image(path)[..., 0].tolist() == [[0, 1, 128, 255, 1]]
    assert read_image(path).shape == (1, 5, 3)


def test_colour_of_16_bits_is_scaled(tmp_path):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.array([[[0, 32896, 65535]]], np.uint16))
    assert read_image(path).tolist() == [[[255, 128, 0]]]


def test_other_modes(tmp_path):
    cmyk, path = Image.new("CMYK", (2, 2), (0, 255, 255, 0)), str(tmp_path / "a.jpg")
    cmyk.save(path, quality=100)
    assert np.abs(read_image(path).astype(int) - RED).max() <= 3
    grey = str(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 77]], np.uint8)).save(grey)
    assert read_image(grey).tolist() == [[[0] * 3, [77] * 3]]
    Image.fromarray(np.array([[False, True]])).save(grey)
    assert read_image(grey).tolist() == [[list(BLACK), list(WHITE)]]
    Image.merge("LA", (Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 51))).save(grey)
    assert read_image(grey).tolist() == [[[204] * 3]]


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_animations_show_their_first_frame(tmp_path, kind):
    path = str(tmp_path / f"a.{kind}")
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "webp" else {}))
    assert read_header(path).size == (4, 4)
    assert (read_image(path) == np.array(RED)).all()


@pytest.mark.parametrize("name", ["a.bmp", "a.WebP", "a.PNG", "a.Jpg", "a.jpeg"])
def test_formats(tmp_path, name):
    path = tmp_path / name
    corners().save(path)
    assert path.suffix.lower() in EXTENSIONS
    header = read_header(str(path))
    assert header == ((40, 20), True)
    assert np.abs(read_image(str(path)).astype(int) - np.asarray(corners())).mean() < 12


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif(tmp_path):
    path = str(tmp_path / "a.avif")
    corners().save(path, quality=100)
    assert ".avif" in EXTENSIONS
    assert read_header(path).size == (40, 20)
    assert np.abs(read_image(path).astype(int) - np.asarray(corners())).mean() < 12


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "not an image"),
        (png_of_size(60000, 60000), "enormous"),
        (png_of_size(0, 5), "says 0 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_bad_headers(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_header, read_image, check_pixels):
        with pytest.raises(BadImage) as caught:
            read(str(path))
        assert reason in str(caught.value)
        assert caught.value.path == str(path)
        assert len(caught.value.messages) == 1


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_truncated_files(tmp_path, kind, kept):
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    check_pixels(str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    try:
        assert not read_header(str(path)).looks_complete
    except BadImage:
        assert kind == "webp"  # its header cannot be read without the rest
    for read in (read_image, check_pixels):
        with pytest.raises(BadImage):
            read(str(path))


def test_corrupt_pixels_are_found_by_decoding(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    assert read_header(str(path)) == ((64, 64), True)
    with pytest.raises(BadImage):
        check_pixels(str(path))


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(BadImage, match="is gone"):
        read_image(str(tmp_path / "a.png"))


def test_floating_point_pixels_are_refused(tmp_path):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(path)
    with pytest.raises(BadImage, match="floating-point"):
        read_image(path)


def test_bad_image_can_leave_a_worker():
    error = pickle.loads(pickle.dumps(BadImage("a.png", "is empty")))
    assert (error.path, error.reason, str(error)) == ("a.png", "is empty", "a.png: is empty")


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)


def test_default_interpolation():
    image = noise(40, 60)
    assert (resize(image, (30, 20)) == cv2.resize(image, (30, 20), interpolation=cv2.INTER_AREA)).all()
    assert (resize(image, (60, 20)) == cv2.resize(image, (60, 20), interpolation=cv2.INTER_AREA)).all()
    lanczos = np.asarray(Image.fromarray(image).resize((61, 20), Image.Resampling.LANCZOS))
    assert (resize(image, (61, 20)) == lanczos).all()
    assert resize(image, (60, 40)) is image


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box"])
def test_named_interpolations(name, channels):
    for size in ((30, 20), (90, 70)):
        found = resize(noise(40, 60, channels), size, name)
        assert found.shape == (size[1], size[0], channels) and found.dtype == np.uint8
    flat = np.full((8, 8, channels), 200, np.uint8)
    assert (resize(flat, (5, 11), name) == 200).all()


def test_names_for_the_same_method():
    image = noise(40, 60)
    assert (resize(image, (31, 23), "linear") == resize(image, (31, 23), "bilinear")).all()
    assert (resize(image, (31, 23), "cubic") == resize(image, (31, 23), "bicubic")).all()
    difference = resize(image, (30, 20), "box").astype(int) - resize(image, (30, 20), "area")
    assert np.abs(difference).max() <= 1  # both are means of 2x2, rounded differently


def test_nearest_picks_the_centre_pixels():
    image = np.arange(9, dtype=np.uint8).reshape(1, 9, 1).repeat(3, axis=2)
    assert resize(image, (3, 1), "nearest")[0, :, 0].tolist() == [1, 4, 7]


def test_hidden_colours_survive_resizing():
    image = np.full((8, 8, 4), 100, np.uint8)
    image[..., 3] = 0
    assert (resize(image, (20, 20))[..., :3] == 100).all()


def test_fit_crops_at_the_centre_or_where_it_is_told():
    image = noise(64, 100)
    assert centre_crop((100, 64), (64, 64)) == (18, 0)
    assert centre_crop((101, 64), (64, 64)) == (18, 0)
    assert (fit_image(image, (100, 64), (64, 64)) == image[:, 18:82]).all()
    assert (fit_image(image, (100, 64), (64, 64), (3, 0)) == image[:, 3:67]).all()
    assert fit_image(image, (200, 128), (128, 128)).shape == (128, 128, 3)
    assert fit_image(image, (100, 64), (64, 64)).flags["C_CONTIGUOUS"]


def test_extensions_are_lower_case():
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp"} <= EXTENSIONS
    assert all(extension == Path("a" + extension).suffix.lower() for extension in EXTENSIONS)


def test_a_png_that_decodes_to_garbage_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.png"
    ramp = np.arange(400, dtype=np.uint8)
    Image.fromarray(np.add.outer(ramp, ramp)).save(path)
    check_pixels(str(path))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(BadImage, match="checksum"):
        check_pixels(str(path))
    with pytest.raises(BadImage, match="checksum"):
        read_image(str(path))
