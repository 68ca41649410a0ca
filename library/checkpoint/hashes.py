"""Hashes that let other programs recognise a model or an adapter (formats of the sshs_* and ss_*_hash metadata)."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHORT_HASH_OFFSET = 0x100000  # bytes into the file
SHORT_HASH_LENGTH = 0x10000  # bytes
CHUNK = 1 << 20  # bytes read at a time; divides the offset, so that a chunk never straddles the start of the window


@dataclass(frozen=True)
class ModelHashes:
    """short: 8 hex digits over 64 KiB at 1 MiB; full: SHA-256 of the file. Of a folder, both say that it is one."""

    short: str
    full: str


def model_hashes(path: str | Path) -> ModelHashes | None:
    """Both hashes of a model file in one pass; remembered as long as the file's size and time stay. None if nothing is there."""
    path = Path(path)
    if path.is_dir():
        return ModelHashes("IsADirectory", "IsADirectory")
    if not path.exists():
        return None
    status = path.stat()
    return _hash_file(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _hash_file(path: Path, size: int, modified_ns: int) -> ModelHashes:
    """`size` and `modified_ns` are here so that a changed file is read again."""
    full, short, position = hashlib.sha256(), hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            full.update(chunk)
            if position == SHORT_HASH_OFFSET:
                short.update(chunk[:SHORT_HASH_LENGTH])
            position += len(chunk)
    return ModelHashes(short.hexdigest()[:8], full.hexdigest())


def short_model_hash(path: str | Path) -> str | None:
    """The short hash alone, at the cost of one small read; None if `path` is not a file."""
    path = Path(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(SHORT_HASH_OFFSET)
        return hashlib.sha256(file.read(SHORT_HASH_LENGTH)).hexdigest()[:8]


def model_name(name_or_path: str) -> str:
    """What files call a model: its own name without the folders above it, or the hub id as it was given."""
    path = Path(name_or_path)
    return path.absolute().name if path.exists() else name_or_path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def adapter_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """sshs_model_hash (of the raw tensor bytes) and sshs_legacy_hash of an adapter.

    Give the tensors as they are saved, after the cast: the hashes are of their bytes. Only ss_* of the metadata counts.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blob = memoryview(save(contiguous, {key: value for key, value in metadata.items() if key.startswith("ss_")}))
    header_length = int.from_bytes(blob[:8], "little")
    window = blob[SHORT_HASH_OFFSET : SHORT_HASH_OFFSET + SHORT_HASH_LENGTH]
    return {
        "sshs_model_hash": hashlib.sha256(blob[8 + header_length :]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(window).hexdigest()[:8],
    }
