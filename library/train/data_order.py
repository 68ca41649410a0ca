"""The dataset of a plan, the order of its batches, and who loads them: the same for training and for looking at the data."""

from __future__ import annotations

from library.data.cache import LatentCache
from library.data.dataset import TrainingDataset
from library.data.foreign_batches import ForeignDataset
from library.data.loader import worker_count
from library.data.order import TrainingOrder
from library.data.templates import caption_replacements
from library.data.text_cache import TextCache
from library.train.plan import Plan


def make_dataset(
    plan: Plan,
    cache: LatentCache | None = None,
    kind: type[TrainingDataset] = TrainingDataset,
    text_cache: TextCache | None = None,
) -> TrainingDataset | ForeignDataset:
    data, last_step = plan.settings.data, plan.length.last_step
    if data.dataset_class:
        return ForeignDataset(plan.prepared[0], plan.seed, last_step)
    replacements = caption_replacements(plan.settings.embedding)
    return kind(plan.prepared, plan.seed, last_step, data.prior_loss_weight, cache, replacements, text_cache)


def make_order(plan: Plan, rank: int) -> TrainingOrder:
    """The order of the process `rank`."""
    return TrainingOrder(plan.prepared, plan.seed, plan.settings.training.gradient_accumulation_steps, rank, plan.world_size)


def workers_of(plan: Plan, dataset: TrainingDataset | ForeignDataset) -> int:
    """How many processes load batches."""
    asked = plan.settings.given("max_data_loader_n_workers") is not None
    return worker_count(plan.settings.data.max_data_loader_n_workers, asked, dataset)
