"""Mistakes in the pictures and their captions."""
from __future__ import annotations

from tests.bad_input import bad_files
from tests.bad_input.table import IMAGES, Case

HERE = f"{{here}}/{IMAGES}"

FOLDERS = [
    Case(
        "empty folder", ("{here}/set/3_empty", "no images"),
        config={"train_data_dir": "{here}/set"}, files={"set/3_empty": bad_files.folder},
    ),
    Case(
        "pictures in a folder below", ("{here}/set/3_frog", "sub-folders are not searched"),
        config={"train_data_dir": "{here}/set"}, files={"set/3_frog/more/a.png": bad_files.picture},
    ),
    Case(
        "pictures of other kinds", ("{here}/set/3_frog", "1 .gif file"),
        config={"train_data_dir": "{here}/set"}, files={"set/3_frog/a.gif": b"GIF89a"},
    ),
    Case("duplicate names", ('"red.jpg" and "red.png"', HERE, "rename"), files={f"{IMAGES}/red.jpg": bad_files.picture}),
]  # fmt: skip

CAPTIONS = [
    Case(
        "captions under another extension only", (HERE, "2 of 2 have a .txt file", "--caption_extension .txt", '"sls frog"'),
        files={f"{IMAGES}/red.txt": "red", f"{IMAGES}/blue.txt": "blue"},
    ),
    Case(
        "caption in UTF-16", (f"{HERE}/red.caption", "UTF-16", "UTF-8"),
        files={f"{IMAGES}/red.caption": "red".encode("utf-16")},
    ),
    Case("caption in Latin-1", (f"{HERE}/red.caption", "UTF-8"), files={f"{IMAGES}/red.caption": "größer".encode("latin-1")}),
    Case(
        "caption that cannot be read", (f"{HERE}/red.caption", "cannot be read"),
        files={f"{IMAGES}/red.caption": bad_files.dangling_link},
    ),
]  # fmt: skip

CACHED = {"cache_latents": True}
AUGMENTATIONS = [
    Case("colours of cached pictures", ("color_aug cannot be cached", "cache_latents"), config={**CACHED, "color_aug": True}),
    Case(
        "random crops of cached pictures", ("random_crop cannot be cached", "cache_latents"),
        config={**CACHED, "random_crop": True},
    ),
]

PICTURES = [
    Case(
        "picture that is text", (f"{HERE}/a.png", "not an image", "--on_bad_image skip"),
        files={f"{IMAGES}/a.png": "no picture"},
    ),
    Case("corrupt picture", (f"{HERE}/a.png", "cannot be decoded"), files={f"{IMAGES}/a.png": bad_files.corrupt_png}),
    Case("truncated JPEG", (f"{HERE}/a.jpg", "truncated"), files={f"{IMAGES}/a.jpg": bad_files.truncated}),
    Case("truncated PNG", (f"{HERE}/a.png", "cannot be decoded"), files={f"{IMAGES}/a.png": bad_files.truncated}),
    Case("truncated WebP", (f"{HERE}/a.webp", "cannot be decoded"), files={f"{IMAGES}/a.webp": bad_files.truncated}),
    Case("empty picture", (f"{HERE}/a.png", "0 bytes"), files={f"{IMAGES}/a.png": b""}),
    Case("picture of no pixels", (f"{HERE}/a.png", "0 pixels"), files={f"{IMAGES}/a.png": bad_files.png_header(0, 64)}),
    Case(
        "enormous picture", (f"{HERE}/a.png", "enormous", "2500000000"),
        files={f"{IMAGES}/a.png": bad_files.png_header(50_000, 50_000)},
    ),
    Case("picture that cannot be read", (f"{HERE}/a.png", "broken link"), files={f"{IMAGES}/a.png": bad_files.dangling_link}),
    Case(
        "program behind a picture's name", (f"{HERE}/a.png", "not an image"),
        files={f"{IMAGES}/a.png": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"},
    ),
    Case(
        "two bad pictures at once", (f"{HERE}/a.png", f"{HERE}/b.png"),
        files={f"{IMAGES}/a.png": b"", f"{IMAGES}/b.png": bad_files.truncated},
    ),
    Case(
        "nothing left after skipping", ("no image to train on", f"{HERE}/blue.png"), flags=("--on_bad_image", "skip"),
        files={f"{IMAGES}/red.png": b"", f"{IMAGES}/blue.png": b""},
    ),
]  # fmt: skip

CASES = [*FOLDERS, *CAPTIONS, *AUGMENTATIONS, *PICTURES]
