"""Encodes the captions that a text cache lacks, each text once, while what is done is written."""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from library.data.cache_fill import LOOK_AHEAD, MOST_NAMED, MOST_THREADS, tidy_folders
from library.data.records import Place, PreparedDataset
from library.data.scan import read_each
from library.data.text_cache import TextCache, TextCacheSettings
from library.data.text_cache_file import Arrays, fingerprint_of, write_entry
from library.errors import UserError

Encode = Callable[[list[str]], dict[str, torch.Tensor]]  # captions -> arrays by key, each [B, ...]


def fill_text_cache(
    prepared: Sequence[PreparedDataset],
    encode: Encode,
    settings: TextCacheSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextCache:
    """The cache of all captions. On disk each process makes its share of what is missing: let all finish before any reads.

    `on_progress` hears how many of how many images are done. At the end raises UserError if the text encoder makes no
    finite numbers of some captions; the others stay on the disk.
    """
    cache = TextCache(prepared, settings)
    if settings.on_disk:
        tidy_folders(prepared)
    missing = _survey(cache)
    if settings.on_disk and settings.skip_cache_check:
        cache.shapes = {key: tuple(array.shape[1:]) for key, array in encode([""]).items()}
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        filling = _Filling(cache, encode, pool)
        filling.keep_class_prompts()
        filling.run(missing, on_progress)
    return cache


def _survey(cache: TextCache) -> list[Place]:
    """What this process must encode; the same caption together, so that it need not be held for long."""
    share = cache.share_of_this_process()
    reasons = read_each(cache.why_missing, share)
    missing = [place for place, reason in zip(share, reasons, strict=True) if reason]
    cache.report.encoded = dict(Counter(str(reason) for reason in reasons if reason))
    cache.report.reused = len(share) - len(missing)
    return sorted(missing, key=cache.caption)


class _Filling:
    """One round of encoding: what it works with, and what goes wrong."""

    def __init__(self, cache: TextCache, encode: Encode, pool: Executor):
        self._cache = cache
        self._encode = encode
        self._pool = pool
        self._encoded: dict[str, Arrays] = {}  # by caption, as long as some entry still needs it
        self._not_finite: set[str] = set()  # captions

    def run(self, missing: list[Place], on_progress: Callable[[int, int], None]) -> None:
        """Encode and store; at the end raise what went wrong on the way."""
        entries = deque((place, self._cache.captions(place)) for place in missing)
        uses = Counter(caption for _, captions in entries for caption in captions)  # in the order of their first use
        to_do, writing = iter(list(uses)), deque[Future[None]]()
        while batch := list(islice(to_do, self._cache.settings.batch_size)):
            self._encode_batch(batch)
            while entries and all(caption in self._encoded for caption in entries[0][1]):
                place, captions = entries.popleft()
                self._store(place, captions, writing)
                self._forget(captions, uses)
            on_progress(len(missing) - len(entries), len(missing))
        for future in writing:
            future.result()
        self._complain()

    def keep_class_prompts(self) -> None:
        """In every process."""
        prompts = self._cache.class_prompts()
        size = self._cache.settings.batch_size
        for first in range(0, len(prompts), size):
            self._encode_batch(prompts[first : first + size])
        for prompt in prompts:
            self._cache.keep(prompt, self._encoded.pop(prompt))

    def _encode_batch(self, captions: list[str]) -> None:
        arrays = {key: _as_numpy(tensor) for key, tensor in self._encode(captions).items()}
        for number, caption in enumerate(captions):
            self._encoded[caption] = {key: array[number].copy() for key, array in arrays.items()}
            if not all(np.isfinite(array).all() for array in self._encoded[caption].values()):
                self._not_finite.add(caption)

    def _store(self, place: Place, captions: list[str], writing: deque[Future[None]]) -> None:
        if not self._not_finite.isdisjoint(captions):
            return
        if self._cache.in_memory:
            for caption in captions:
                self._cache.keep(caption, self._encoded[caption])
            return
        fingerprint = fingerprint_of(captions, self._cache.settings.source)
        arrays = [self._encoded[caption] for caption in captions]
        writing.append(self._pool.submit(write_entry, self._cache.path_of(place), arrays, fingerprint))
        while len(writing) > LOOK_AHEAD:
            writing.popleft().result()

    def _forget(self, captions: list[str], uses: Counter[str]) -> None:
        for caption in captions:
            uses[caption] -= 1
            if not uses[caption]:
                del self._encoded[caption]

    def _complain(self) -> None:
        if self._not_finite:
            named = ", ".join(f'"{caption}"' for caption in sorted(self._not_finite)[:MOST_NAMED])
            more = f" and {len(self._not_finite) - MOST_NAMED} more" if len(self._not_finite) > MOST_NAMED else ""
            remedy = 'use mixed_precision = "bf16" or "no", or change these captions'
            raise UserError(f"the text encoder makes no finite numbers of {named}{more}: {remedy}")


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """numpy has no bfloat16; float32 holds its values exactly."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
