"""Reads one untrusted picture after another and writes its pixels anew: a process of its own with limits, the only one with Pillow.

    python -m service.intake.picture_worker '{"max_pixels": 50000000, ...}'

A line of JSON in ({"source", "destination"}), a line of JSON out ({"width", "height", "format"} or {"problem"}, with "is_full"
where the picture is not to blame, but the disk).
"""
from __future__ import annotations

import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.storage.space import FULL

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_COMPRESSION = 1  # of 9: a few percent larger than the usual 6, and several times as fast
_MOST_WRITTEN_BYTES = 1 << 30  # of one file
_PROCESS_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 64, "RLIMIT_FSIZE": _MOST_WRITTEN_BYTES}


class Refused(Exception):
    """The picture is not taken: one line that says why."""


def limit_process(memory_bytes: int) -> None:
    """For the whole life of the process. Where the platform has no such limits, the parent's clock is what is left."""
    with suppress(ImportError):  # Windows
        import resource

        for name, value in {**_PROCESS_LIMITS, "RLIMIT_AS": memory_bytes}.items():
            with suppress(ValueError, OSError):  # macOS refuses some
                resource.setrlimit(getattr(resource, name), (value, value))


def limit_next_picture(cpu_seconds: int) -> None:
    """So much processor time from now on; beyond it the system ends the process."""
    with suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def rewrite(source: Path, destination: Path, least_side: int, largest_side: int | None = None) -> dict[str, Any]:
    """The first frame, turned as its EXIF says, as a PNG of RGB or RGBA that holds nothing but pixels.

    Width and height that are told are the picture's own, also where it is written smaller.
    """
    from PIL import Image, ImageOps

    with Image.open(source, formats=FORMATS) as image:
        kind, size = image.format, image.size
        if min(size) < least_side:
            raise Refused(f"it has {size[0]}x{size[1]} pixels; at least {least_side}x{least_side} are needed")
        image.verify()  # checksums; a verified image cannot be read any more
    with Image.open(source, formats=FORMATS) as image:
        if (image.format, image.size) != (kind, size):
            raise Refused("it changed while it was read")
        image.seek(0)
        image.load()
        picture = _in_eight_bits(ImageOps.exif_transpose(image))
        picture.info.clear()  # EXIF, text, profiles
        width, height = picture.size
        if largest_side is not None:
            picture.thumbnail((largest_side, largest_side))
        picture.save(destination, "PNG", compress_level=_COMPRESSION)
        return {"width": width, "height": height, "format": "JPEG" if kind == "MPO" else kind}


def _in_eight_bits(image: Any) -> Any:
    """RGB, or RGBA where something is transparent."""
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would cut off at 255 instead of scaling
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGB")


def answer(request: dict[str, str], limits: dict[str, Any]) -> dict[str, Any]:
    """What is told of one picture. Pillow raises errors of many kinds for what is broken; all mean the same here."""
    try:
        return rewrite(Path(request["source"]), Path(request["destination"]), limits["least_side"], limits.get("largest_side"))
    except Refused as problem:
        return {"problem": str(problem)}
    except MemoryError:
        return {"problem": "it needs too much memory"}
    except Exception as problem:
        from PIL import Image

        if isinstance(problem, OSError) and problem.errno in FULL:
            return {"problem": "it cannot be written", "is_full": True}
        if isinstance(problem, Image.DecompressionBombWarning | Image.DecompressionBombError):
            return {"problem": f"it has more than {limits['max_pixels']} pixels"}
        return {"problem": "it is damaged, or no picture of the formats png, jpeg, webp and bmp"}


def main() -> None:
    limits = json.loads(sys.argv[1])
    limit_process(limits["memory_bytes"])
    from PIL import Image  # after the limits hold

    Image.MAX_IMAGE_PIXELS = limits["max_pixels"]
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        limit_next_picture(limits["cpu_seconds"])
        print(json.dumps(answer(json.loads(line), limits)), flush=True)


if __name__ == "__main__":
    main()
