"""Finding and reading the caption file of an image, and noticing captions under another extension."""
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from library.data.folders import Folder, split_name
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings

_USUAL_EXTENSIONS = (".txt", ".caption", ".cap", ".text", ".tags")
_FACE_PIECES = 4  # photo_cx_cy_w_h: face detection adds these to the names of what it cuts out of photo


def find_caption(folder: Folder, image: str, extension: str) -> str | None:
    """The name of the image's caption file: of its own, else of the photo that it was cut out of."""
    stem, _ = split_name(image)
    if found := folder.others.get(stem + extension) or folder.others.get(stem + extension.lower()):
        return found
    photo, *pieces = stem.rsplit("_", _FACE_PIECES)
    if not photo or len(pieces) < _FACE_PIECES:
        return None
    return folder.others.get(photo + extension) or folder.others.get(photo + extension.lower())


def caption_lines(path: str) -> list[str]:
    """The lines of a caption file that are not blank, stripped."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (the detour over a Path takes as long as the rest)
            content = file.read()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: the caption cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "it seems to be UTF-16" if utf16 else f"byte {error.start + 1} does not fit"
        raise UserError(f"{path}: the caption is not UTF-8 text ({found}): save it as UTF-8") from None
    if "\x00" in text:
        raise UserError(f"{path}: the caption is not UTF-8 text (it holds zero bytes): save it as UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [stripped for line in lines if (stripped := line.strip())]


def captions_elsewhere(folder: Folder, subset: SubsetSettings) -> str | None:
    """What is wrong if the default extension finds no caption, but more than half of the images have one under another."""
    if subset.caption_extension_given or any(find_caption(folder, image, subset.caption_extension) for image in folder.images):
        return None
    found = Counter(
        extension for extension in _USUAL_EXTENSIONS for image in folder.images if find_caption(folder, image, extension)
    )
    if not found or 2 * max(found.values()) <= len(folder.images):
        return None
    other, count = found.most_common(1)[0]
    instead = f'the class tokens "{subset.class_tokens}"' if subset.class_tokens is not None else "empty captions"
    return (
        f'{subset.where}: no image in "{subset.image_dir}" has a {subset.caption_extension} file, '
        f"but {count} of {len(folder.images)} have a {other} file: give --caption_extension {other} to train on those, "
        f"or --caption_extension {subset.caption_extension} to train on {instead}"
    )
