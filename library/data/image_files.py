"""Opening image files: upright size from the header, whether the pixels can be decoded; bad files raise BadImage."""
from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError, features

from library.data.headers import Header, looks_complete, png_chunks, quick_header
from library.data.records import Size
from library.errors import UserError


def _register_formats() -> set[str]:
    """Load Pillow's plug-ins and others that are installed; the extensions (in lower case) of the images that are trained on."""
    Image.preinit()
    for name in ("MpoImagePlugin", "TiffImagePlugin", "WebPImagePlugin"):
        import_module(f"PIL.{name}")
    extensions = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
    if features.check("avif"):
        import_module("PIL.AvifImagePlugin")
        extensions.add(".avif")
    for extension, name in ((".avif", "pillow_avif"), (".jxl", "pillow_jxl"), (".jxl", "jxlpy.JXLImagePlugin")):
        with suppress(ImportError):
            import_module(name)
            extensions.add(extension)
    return extensions


# Pillow warns of broken EXIF and of sizes that it still reads; nobody can act on either in the middle of a training.
warnings.filterwarnings("ignore", module=r"PIL\..*")
EXTENSIONS = frozenset(_register_formats())
# Only pictures, whatever their extension says: Pillow would otherwise start Ghostscript for an EPS file named .png.
_FORMATS = [name for name in Image.OPEN if name in {"PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JXL"}]
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GONE = "is gone (a broken link, or removed since the folder was listed)"


class BadImage(UserError):
    """An image file that cannot be trained on."""

    def __init__(self, path: str, reason: str = ""):
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:  # so that it survives the way out of a loader's worker
        return BadImage, (self.path, self.reason)


def read_header(path: str) -> Header:
    """Size and probable completeness of an image file, in some hundredths of a millisecond where it is a plain one."""
    with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123  (the detour over a Path takes as long as the rest)
        if found := quick_header(file):
            return found
    with opened(path) as (file, image):
        return Header(_upright_size(image, file), looks_complete(file, image.format))


def check_pixels(path: str) -> Size:
    """Decode the whole image, to find truncated and corrupt data; its upright size."""
    with opened(path) as (file, image):
        size = _upright_size(image, file)
        decode(file, image)
        return size


def decode(file: BinaryIO, image: Image.Image) -> None:
    """Load the pixels. Pillow does not look at the checksums of a PNG's, and shows garbage in the place of some that are corrupt."""
    if image.format == "PNG" and not _checksums_fit(file):
        raise ValueError("the checksum of its pixels is wrong")
    image.load()


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """The file and its undecoded image; whatever goes wrong inside becomes a BadImage."""
    try:
        with Path(path).open("rb") as file:
            if not file.read(1):
                raise BadImage(path, "is empty (0 bytes)")
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                yield file, image
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(path, "is not an image of a known format, or its header is damaged or says 0 pixels") from error
    except Image.DecompressionBombError as error:
        raise BadImage(path, f"is enormous: {error}") from error
    except FileNotFoundError as error:
        raise BadImage(path, GONE) from error
    except PermissionError as error:
        raise BadImage(path, "cannot be read: permission denied") from error
    except Exception as error:  # decoders raise anything on hostile bytes: SyntaxError, struct.error, IndexError, ...
        raise BadImage(path, f"cannot be decoded: {error or type(error).__name__}") from error


def _upright_size(image: Image.Image, file: BinaryIO) -> Size:
    width, height = image.size
    return (height, width) if orientation(image, file) >= 5 else (width, height)


def orientation(image: Image.Image, file: BinaryIO) -> int:
    """EXIF orientation 1..8, the same before and after decoding."""
    try:
        if image.format == "PNG" and "exif" not in image.info:
            late = _png_exif_after_pixels(file)
            if late:
                image.info["exif"] = late
        # PngImageFile.getexif would decode the whole image in search of a late chunk, hence the method of its base class.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return value if value in TRANSPOSITIONS else 1
    except Exception:  # broken EXIF says nothing about the pixels, and cameras write every kind of it
        return 1


def _png_exif_after_pixels(file: BinaryIO) -> bytes | None:
    """The eXIf chunk, wherever it stands. Leaves the file position as it was."""
    position = file.tell()
    try:
        return next((b"Exif\x00\x00" + file.read(length) for kind, length in png_chunks(file) if kind == b"eXIf"), None)
    finally:
        file.seek(position)


def _checksums_fit(file: BinaryIO) -> bool:
    """Whether no complete IDAT chunk of a PNG is corrupt. Leaves the file position as it was."""
    position = file.tell()
    try:
        for kind, length in png_chunks(file):
            if kind == b"IDAT":
                found, written = zlib.crc32(file.read(length), zlib.crc32(kind)), file.read(4)
                if len(written) == 4 and found != int.from_bytes(written, "big"):
                    return False
        return True
    finally:
        file.seek(position)
