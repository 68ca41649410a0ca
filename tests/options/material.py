"""What trials train on: a few pictures with captions, masks, dataset files, prompts; and tiny models to train."""

from __future__ import annotations

import json
import shutil
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_models import tiny_sd1_folder, tiny_sd1_single_file, tiny_sdxl_folder

WORD = "zorb"
PICTURE = (96, 128)  # width and height in pixels
CAPTIONS = {
    "a": f"a {WORD} in the {{wet|dry}} grass, green, (small:1.4), one +++ big, old +++ on a stone, " + "and another one, " * 40,
    "b_60_70_20_20": f"a {WORD}, brown; old, very [large], {{wet|dry}}\nthe {WORD} of the second line",  # a face in the name
    "c": f"one {WORD}, blue, on a leaf, in the rain, at night",
}
DATASETS = """
[general]
caption_extension = ".txt"
[[datasets]]
resolution = 64
[[datasets.subsets]]
image_dir = "{image_dir}"
num_repeats = {repeats}
"""


def make_models(folder: Path) -> None:
    """Short ones; a `whole` one with all blocks; `deep` ones with all cross-attentions. `untold` ones have no tokenizer."""
    tiny_sd1_folder(folder / "model", short=True)
    tiny_sd1_folder(folder / "other", seed=1, short=True)
    tiny_sd1_folder(folder / "whole")
    tiny_sd1_single_file(folder / "whole.safetensors")
    tiny_sd1_folder(folder / "deep", layers_per_block=2, short=True)
    tiny_sd1_folder(folder / "other-deep", seed=1, layers_per_block=2, short=True)
    shutil.rmtree(tiny_sd1_folder(folder / "untold") / "tokenizer")
    shutil.rmtree(tiny_sd1_folder(folder / "untold-deep", layers_per_block=2) / "tokenizer")
    tiny_sdxl_folder(folder / "sdxl")


def make_data(folder: Path) -> None:
    """Pictures in `data`, others in `others`; masks, regularisation pictures, and files that describe them."""
    pictures = folder / "data" / "1_toad"
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        _write_picture(pictures / f"{name}.png", number)
        pictures.joinpath(f"{name}.txt").write_text(caption, encoding="utf-8")
        pictures.joinpath(f"{name}.caption").write_text(f"another {WORD}", encoding="utf-8")
        for kind, share in (("masks", 0.25), ("other-masks", 0.75)):
            _write_mask(folder / kind / f"{name}.png", share)
    _write_picture(folder / "others" / "1_toad" / "d.png", 7)
    folder.joinpath("others", "1_toad", "d.txt").write_text(f"the {WORD} of others", encoding="utf-8")
    _write_picture(folder / "damaged" / "1_toad" / "f.png", 9)
    folder.joinpath("damaged", "1_toad", "g.png").write_bytes(b"no picture")
    for name in "fg":
        folder.joinpath("damaged", "1_toad", f"{name}.txt").write_text(f"a {WORD}", encoding="utf-8")
    _write_picture(folder / "reg" / "1_frog" / "e.png", 8)
    for name in ("one", "two"):
        described = {key: {"caption": f"{WORD} {name}"} for key in CAPTIONS}
        folder.joinpath(f"{name}.json").write_text(json.dumps(described), encoding="utf-8")
    for name, image_dir, repeats in (("one", "data", 1), ("two", "others", 3)):
        content = DATASETS.format(image_dir=(folder / image_dir / "1_toad").as_posix(), repeats=repeats)
        folder.joinpath(f"{name}.toml").write_text(content, encoding="utf-8")
    folder.joinpath("tensorboard.toml").write_text('[tensorboard]\nfilename_suffix = ".toads"\n', encoding="utf-8")
    folder.joinpath("prompts.txt").write_text(f"a {WORD} --w 64 --h 64 --s 1 --d 1\n", encoding="utf-8")


def _write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_picture(seed))


@cache
def _picture(seed: int) -> bytes:
    """Blocks of 8 pixels, half of which can be seen through."""
    width, height = PICTURE
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 4), dtype=np.uint8)
    blocks[: height // 16, :, 3] = 255
    return _encoded(blocks.repeat(8, axis=0).repeat(8, axis=1))


def _write_mask(path: Path, share: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_mask(share))


@cache
def _mask(share: float) -> bytes:
    """White on the left."""
    width, height = PICTURE
    mask = np.zeros((height, width, 3), dtype=np.uint8)
    mask[:, : round(width * share)] = 255
    return _encoded(mask)


def _encoded(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
