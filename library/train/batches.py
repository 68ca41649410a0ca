"""The batches of a run, on this process: what is to be cached is cached, then they are loaded in the order of the plan; held-out
ones, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from library.data.dataset import TrainingDataset
from library.data.loader import make_loader
from library.data.templates import caption_replacements
from library.data.validation import with_held_out
from library.families.encoding import PictureEncoder
from library.train.caching import fill_caches
from library.train.data_order import make_dataset, make_order, workers_of
from library.train.plan import Plan
from library.train.runtime import Runtime
from library.types import Batch, BatchPlace, Parts


@dataclass(frozen=True)
class Batches:
    """This process's share."""

    training: Iterator[Batch]
    held_out: Callable[[], Iterator[Batch]]  # the same ones at each call


def make_batches(plan: Plan, parts: Parts, runtime: Runtime, encode: PictureEncoder) -> Batches:
    """Caches what is to be cached now; the batches are made as they are asked for."""
    settings = plan.settings
    caches = fill_caches(plan, parts, runtime, encode)
    if not plan.prompts and not settings.memory.highvram:
        for module in caches.needless(parts):
            module.to("cpu")
    dataset = make_dataset(plan, caches.latents, text_cache=caches.text)
    workers = workers_of(plan, dataset)
    places = make_order(plan, runtime.rank).places(plan.length.first_step, plan.length.last_step)
    training = make_loader(dataset, places, workers)
    if plan.validation is None:
        return Batches(training, lambda: iter(()))
    everything, replacements = with_held_out(plan.prepared), caption_replacements(settings.embedding)
    shown = TrainingDataset(
        everything, plan.validation.seed, plan.length.last_step, 1.0, caches.latents, replacements, caches.text
    )
    held_out = held_out_places(plan.validation.places, runtime)
    return Batches(training, lambda: make_loader(shown, held_out, min(workers, len(held_out))))


def held_out_places(places: Sequence[BatchPlace], runtime: Runtime) -> list[BatchPlace]:
    """This process's share. Where a pass over the model needs all processes, all have as many: copies of share 0 fill up."""
    mine = list(places[runtime.rank :: runtime.world_size])
    missing = -(-len(places) // runtime.world_size) - len(mine)
    return mine + [replace(places[0], share=0.0)] * missing if runtime.sharing.in_parts else mine
