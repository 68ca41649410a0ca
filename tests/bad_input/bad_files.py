"""Makers of pictures, models and other files, good and bad: each takes the path to write to, or returns what does."""
from __future__ import annotations

import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

Maker = Callable[[Path], object]


def picture(path: Path, colour: str = "green", size: tuple[int, int] = (64, 64)) -> None:
    """Noise with a cast, so that no format makes next to nothing of it."""
    noise = np.random.default_rng(len(colour)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.blend(Image.fromarray(noise), Image.new("RGB", size, colour), 0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def truncated(path: Path) -> None:
    """A picture, or another file that is there, without its second half."""
    if not path.exists():
        picture(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def corrupt_png(path: Path) -> None:
    picture(path)
    spoil_middle(path)


def spoil_middle(path: Path) -> None:
    """Header and end stay right, what is between them does not."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


def png_header(width: int, height: int) -> Maker:
    """A PNG that claims a size and has no pixels: 0 is none, 50000 a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return lambda path: path.write_bytes(content)


def dangling_link(path: Path) -> None:
    """A file that is listed and cannot be opened."""
    try:
        path.symlink_to(path.with_name("what was removed"))
    except OSError:
        pytest.skip("this system lets nobody make links")


def folder(path: Path) -> None:
    """Also where a file belongs: unreadable for everybody, root included."""
    path.mkdir(parents=True)


def first_bytes(count: int) -> Maker:
    """Leaves the beginning of a file."""
    return lambda path: path.write_bytes(path.read_bytes()[:count])


def without(name: str) -> Maker:
    """Removes something from a folder."""

    def remove(path: Path) -> None:
        doomed = path / name
        shutil.rmtree(doomed) if doomed.is_dir() else doomed.unlink()

    return remove


def within(name: str, change: Maker) -> Maker:
    """Changes a file in a folder."""
    return lambda path: change(path / name)


def damaged(path: Path) -> None:
    """Changes a byte of a file in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@dataclass(frozen=True)
class Copied:
    """A copy of something in the folder of the models, changed."""

    source: str
    change: Maker = lambda path: None

    def make(self, path: Path, models: Path) -> None:
        original = models / self.source
        if original.is_dir():
            shutil.copytree(original, path)
        else:
            shutil.copy(original, path)
        self.change(path)


def weights(*names: str, rows: int = 2) -> Maker:
    """A safetensors file of small tensors with these names."""
    return lambda path: save_file({name: np.zeros((rows, 4), np.float32) for name in names}, path)


def truncated_weights(path: Path) -> None:
    weights("something")(path)
    truncated(path)


SDXL = weights(
    "model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.ln_final.weight", "conditioner.embedders.0.x"
)
FLUX = weights("double_blocks.0.img_attn.proj.bias")
ADAPTER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LORA_NAMES = (f"{ADAPTER}.lora_down.weight", f"{ADAPTER}.lora_up.weight")
PAYLOAD_RAN = "the payload was run"  # the file that the malicious pickles make, in the folder of the process


class Malicious:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (PAYLOAD_RAN,)


def malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Malicious()}))


def malicious_checkpoint(path: Path) -> None:
    """In the layout that torch writes since version 1.6."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"state_dict": Malicious()}, protocol=2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
