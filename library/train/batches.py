"""The batches of a run, on this process: latents cached if asked for, then loaded in the order of the plan; held-out ones, too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from library.data.cache import CacheSettings, LatentCache
from library.data.cache_fill import fill_cache
from library.data.dataset import TrainingDataset
from library.data.loader import make_loader
from library.data.records import PreparedDataset
from library.data.templates import caption_replacements
from library.data.validation import validation_datasets
from library.data.weights_fingerprint import weights_fingerprint
from library.train.data_order import make_dataset, make_order, workers_of
from library.train.plan import Plan
from library.train.runtime import Runtime
from library.types import Batch, Parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batches:
    """This process's share."""

    training: Iterator[Batch]
    held_out: Callable[[], Iterator[Batch]]  # the same ones at each call


def make_batches(plan: Plan, parts: Parts, runtime: Runtime) -> Batches:
    """Caches what is to be cached now; the batches are made as they are asked for."""
    settings = plan.settings
    everything = [*plan.prepared, *validation_datasets(plan.prepared)]
    with runtime.failing_together():
        cache = _make_cache(plan, everything, parts, runtime) if settings.data.cache_latents else None
    if cache is not None:
        cache.share_borrowed(runtime.merged(cache.borrowed_by_path()))
    if cache is not None and not plan.prompts and not settings.memory.highvram:
        parts.vae.to("cpu")  # nothing needs it any more
    dataset = make_dataset(plan, cache)
    workers = workers_of(plan, dataset)
    places = make_order(plan, runtime.rank).places(plan.length.first_step, plan.length.last_step)
    training = make_loader(dataset, places, workers)
    if plan.validation is None:
        return Batches(training, lambda: iter(()))
    replacements = caption_replacements(settings.embedding)
    shown = TrainingDataset(everything, plan.validation.seed, plan.length.last_step, 1.0, cache, replacements)
    held_out = plan.validation.places[runtime.rank :: runtime.world_size]
    return Batches(training, lambda: make_loader(shown, held_out, min(workers, len(held_out))))


def _make_cache(plan: Plan, everything: list[PreparedDataset], parts: Parts, runtime: Runtime) -> LatentCache:
    data, family = plan.settings.data, plan.family
    settings = CacheSettings(
        on_disk=data.cache_latents_to_disk,
        vae_batch_size=data.vae_batch_size,
        skip_cache_check=data.skip_cache_check,
        vae_fingerprint=weights_fingerprint(parts.vae) if data.cache_latents_to_disk else "",
        vae_scale=family.vae_scale,
        channels=family.channels,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    with torch.no_grad():
        cache = fill_cache(
            everything,
            lambda images: family.encode_images(parts, images),
            settings,
            on_progress=lambda _done, _total: runtime.stop_request.check(),
        )
    for line in cache.report.lines():
        log.info("%s", line)
    return cache
