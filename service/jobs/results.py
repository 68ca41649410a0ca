"""What a training leaves for its client: output.zip, and a list of files with their digests."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.jobs.stages import Stopped
from service.training.job_folder import JobFolder

OUTPUT_ZIP = "output.zip"
READ_AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class ResultFile:
    name: str
    path: Path
    size: int
    sha256: str


def pack(folder: JobFolder, should_stop: Callable[[], bool]) -> None:
    """output.zip: the weights (of a whole model in Diffusers layout, at the root), args.json, samples/N.png. Weights do not shrink."""
    folder.result.mkdir(parents=True, exist_ok=True)
    packed, given = folder.result / OUTPUT_ZIP, folder.output / OUTPUT_ZIP
    temporary = packed.with_name(f".{OUTPUT_ZIP}.part")
    if given.is_file():  # a trainer package has left it
        given.replace(packed)
        return
    if packed.exists():
        return
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, path in _contents(folder):
                if should_stop():
                    raise Stopped
                archive.write(path, name)
        temporary.replace(packed)
    finally:
        temporary.unlink(missing_ok=True)


def _contents(folder: JobFolder) -> Iterator[tuple[str, Path]]:
    weights = folder.weights()
    if weights is not None and weights.is_dir():
        yield from ((path.relative_to(weights).as_posix(), path) for path in sorted(weights.rglob("*")) if path.is_file())
    elif weights is not None:
        yield weights.name, weights
    processors = sorted(folder.attention_processors.glob("pytorch_*"))
    yield from ((path.relative_to(folder.processors_root).as_posix(), path) for path in processors)
    if folder.arguments_file.exists():
        yield "args.json", folder.arguments_file
    samples = [path for path in sorted(folder.samples.glob("*.png")) if "_sheet_" not in path.name]  # a sheet shows them all
    yield from ((f"samples/{number}.png", path) for number, path in enumerate(samples))


def result_files(folder: JobFolder) -> list[ResultFile]:
    """Everything that is handed over."""
    files = [path for path in sorted(folder.result.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [ResultFile(path.relative_to(folder.result).as_posix(), path, path.stat().st_size, _digest(path)) for path in files]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
