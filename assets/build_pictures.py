"""Builds the pictures and captions that the embedded base learns from, out of three packages of npm.

    pip install resvg-py                                # npm fetches the packages, about 24 MB
    python assets/build_pictures.py work/pictures       # 64 pixels; --size 128 for larger ones

Fluent Emoji 3D and Flat (Microsoft, MIT) and the labels of emojibase (MIT), on white, with a metadata file, meta.json, for
`fine_tune.py --in_json`. Left out: people, flags, and what only shows letters or digits. Captions hold choices for
`enable_wildcard`, and tags that `shuffle_caption` and `caption_tag_dropout_rate` vary.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import resvg_py
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.checkpoint.files import atomic_directory

PACKAGES = {  # with the SHA-512 that npm publishes of each
    "@lobehub/fluent-emoji-3d@1.1.0": "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "@iconify-json/fluent-emoji-flat@1.2.6": "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    "emojibase-data@17.0.0": "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
}
ART_3D, ART_FLAT, LABELS = PACKAGES
GROUPS_LEFT_OUT = (1, 2, 9, None)  # of emojibase: people and body, components, flags, letters
LABELS_LEFT_OUT = ("Japanese", "keycap", "input", "regional indicator")
SINGULAR_ENDINGS = ("ss", "us", "is", "os")  # of words that end in s
LINKS = {"with", "in", "over", "under", "showing", "holding"}  # behind them the last word is not the thing
RENDERED_PIXELS = 256  # before they are made small
Pictures = dict[str, Image.Image]  # by code point, such as 1f438


def fetch(package: str, folder: Path) -> Path:
    """The package's archive, as npm gives it; an error if it is not the one that is meant."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed to fetch the pictures: install Node.js (https://nodejs.org)")
    packed = subprocess.run([npm, "pack", "--json", package], cwd=folder, check=True, capture_output=True, encoding="utf-8")
    archive = folder / json.loads(packed.stdout)[0]["filename"]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != PACKAGES[package]:
        sys.exit(f"{package}: the archive is not the one that this script was written for (SHA-512 {digest})")
    return archive


def files_of(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names within the package, and contents."""
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member)
            if file is not None:
                yield member.name.removeprefix("package/"), file.read()


def code_point(name: str) -> str:
    """The sign that asks for the coloured form is written by some and left out by others."""
    return "-".join(part for part in name.lower().split("-") if part != "fe0f")


def pictures_3d(archive: Path) -> Pictures:
    return {
        code_point(Path(name).stem): Image.open(io.BytesIO(content)).convert("RGBA")
        for name, content in files_of(archive)
        if name.endswith(".webp")
    }


def pictures_flat(archive: Path, wanted: set[str]) -> Pictures:
    files = dict(files_of(archive))
    icons, names = json.loads(files["icons.json"]), json.loads(files["chars.json"])
    pictures = {}
    for code, name in names.items():
        if code_point(code) in wanted and name in icons["icons"]:
            icon = icons["icons"][name]
            width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
            png = resvg_py.svg_to_bytes(svg_string=svg, width=RENDERED_PIXELS, height=RENDERED_PIXELS)
            pictures[code_point(code)] = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return pictures


def labelled(archive: Path) -> dict[str, dict]:
    """What emojibase says of each emoji that is not left out, by code point."""
    entries = next(json.loads(content) for name, content in files_of(archive) if name == "en/data.json")
    return {
        code_point(entry["hexcode"]): entry
        for entry in entries
        if entry.get("group") not in GROUPS_LEFT_OUT and not entry["label"].startswith(LABELS_LEFT_OUT)
    }


def with_article(label: str) -> str:
    is_plural = label.endswith("s") and not label.endswith(SINGULAR_ENDINGS) and not LINKS & set(label.split())
    if is_plural:
        return label
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"


def described(entry: dict, style: str, otherwise: str) -> dict[str, str]:
    """Caption and tags. Four times of six the caption names the style, else the kind of picture, or only the thing."""
    label = entry["label"].lower()
    thing = with_article(label)
    choices = [f"a {style} emoji of {thing}"] * 4 + [f"a {otherwise} of {thing}", label]
    tags = [tag for tag in entry.get("tags", ()) if tag not in label.split()]
    return {"caption": f"{{{'|'.join(choices)}}}", "tags": ", ".join(tags)}


def small(picture: Image.Image, size: int) -> Image.Image:
    """On white."""
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


def build(folder: Path, size: int) -> int:
    """Fills an empty folder; the number of pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        archives = {package: fetch(package, Path(temporary)) for package in PACKAGES}
        labels = labelled(archives[LABELS])
        styles = {
            "3d": ("photo", pictures_3d(archives[ART_3D])),
            "vector": ("drawing", pictures_flat(archives[ART_FLAT], set(labels))),
        }
    metadata = {}
    for style, (otherwise, pictures) in styles.items():
        for code in sorted(pictures.keys() & labels.keys()):
            name = f"{style}_{code}.png"
            small(pictures[code], size).save(folder / name)
            metadata[name] = described(labels[code], style, otherwise)
    (folder / "meta.json").write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
    return len(metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the pictures that the embedded base learns from.")
    parser.add_argument("folder", type=Path, help="folder to write; it must not be there yet")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    options = parser.parse_args()
    if options.folder.exists():
        sys.exit(f"{options.folder}: this is there already; give a name that is free")
    with atomic_directory(options.folder) as temporary:
        count = build(temporary, options.size)
    print(f"{count} pictures of {options.size} pixels and meta.json in {options.folder}")


if __name__ == "__main__":
    main()
