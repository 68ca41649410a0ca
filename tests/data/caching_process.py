"""A process that caches the latents of a folder, and then reads them all."""
from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from library.data.cache import LatentCache
from library.data.cache_fill import fill_cache
from library.errors import UserError
from library.types import Posterior
from tests.data.tiny_datasets import cache_settings, encode, prepare, subset_of
from tests.train.runs import Strike, await_strikes, process_context

PATIENCE_S = 120.0


class Caching:
    """Started at once; what it found and printed is there once it has ended."""

    def __init__(self, folder: Path, strikes: Sequence[Strike] = (), together: Barrier | None = None, bytes_per_file: int = 0):
        self._log = folder.parent / f"{folder.name}-{id(self)}.log"
        self._result = self._log.with_suffix(".json")
        arguments = (folder, self._log, self._result, list(strikes), together, bytes_per_file)
        self._process = process_context().Process(target=_cache, args=arguments)
        self._process.start()

    @property
    def code(self) -> int:
        """Negative for the signal that ended it."""
        self._process.join()
        return self._process.exitcode

    @property
    def printed(self) -> str:
        self._process.join()
        return self._log.read_text(encoding="utf-8")

    @property
    def found(self) -> dict[str, Any]:
        """`report`, and `latents`: a hash of all."""
        assert self.code == 0, self.printed
        return json.loads(self._result.read_text(encoding="utf-8"))


def start_together() -> Barrier:
    """Two processes wait here for each other, after each has found out what is missing."""
    return process_context().Barrier(2, timeout=PATIENCE_S)


def hash_of(cache: LatentCache, images: int) -> str:
    digest = hashlib.sha256()
    for index in range(images):
        for flipped in (False, True):
            latents = cache.read((0, index), flipped)
            digest.update(latents.mean.tobytes() + latents.std.tobytes())
    return digest.hexdigest()


def _cache(
    folder: Path, log: Path, result: Path, strikes: list[Strike], together: Barrier | None, bytes_per_file: int
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if bytes_per_file:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))
    prepared = prepare(subset_of(folder, flip_aug=True))
    await_strikes(strikes)
    try:
        cache = fill_cache(prepared, _meeting(together) if together else encode, cache_settings())
    except UserError as error:
        print(*error.messages, sep="\n")
        sys.exit(2)
    found = {"report": asdict(cache.report), "latents": hash_of(cache, len(prepared[0].records))}
    result.write_text(json.dumps(found), encoding="utf-8")


def _meeting(together: Barrier) -> Callable[[torch.Tensor, Sequence[str]], Posterior]:
    """Encodes; the first time, both processes have come so far."""
    met = []

    def encode_after_meeting(images: torch.Tensor, paths: Sequence[str]) -> Posterior:
        if not met:
            together.wait()
            met.append(True)
        return encode(images)

    return encode_after_meeting
