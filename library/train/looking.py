"""--dry_run and --debug_dataset: the plan and the data, printed and written as a page; then, if asked for, the batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from library import __version__
from library.data.dataset import TrainingDataset
from library.data.foreign_batches import ForeignDataset
from library.data.loader import make_loader
from library.data.lookalikes import Comparison, compare_pictures
from library.data.report import data_report
from library.data.wording import shortened
from library.errors import UserError
from library.review.advice import advice_on
from library.review.cards import CardMaker
from library.review.keys import input_descriptor, pressed_keys
from library.review.looked_at import LookedAtDataset
from library.review.page import Page, write_page
from library.review.walk import BatchWalk
from library.train.console import console
from library.train.data_order import make_dataset, make_order, workers_of
from library.train.plan import Plan
from library.train.signals import Stopped, StopRequest
from library.types import Batch, BatchPlace


def look(plan: Plan, stop_request: StopRequest) -> int:
    """What these options do instead of training; the exit code. No model is loaded."""
    try:
        comparison = _compare(plan, stop_request)
        plan = dataclasses.replace(plan, report=data_report(plan.prepared, comparison.lookalikes))
        print("\n".join(plan.lines()), flush=True)
        dataset = make_dataset(plan, kind=LookedAtDataset)
        page = _page(plan, comparison, dataset, stop_request)
        html, _ = write_page(page, plan.output_dir, _prefix(plan))
        remarks = f"{len(page.advice)} remark{'s' if len(page.advice) > 1 else ''}" if page.advice else "nothing stands out"
        print(f"dataset report, {remarks}: {html}", flush=True)
        _stop_at_damage(comparison)
        if plan.settings.training.debug_dataset:
            _walk(plan, dataset, stop_request)
        if plan.settings.training.dry_run and not stop_request.wanted:
            print("dry run: everything is in order; nothing was trained, and nothing written but the dataset report")
    except Stopped:
        pass
    return stop_request.exit_code


def _compare(plan: Plan, stop_request: StopRequest) -> Comparison:
    progress = Progress(
        TextColumn("looking at the pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    )  # fmt: skip
    task = progress.add_task("")

    def on_progress(done: int, total: int) -> None:
        stop_request.check()
        progress.update(task, completed=done, total=total)

    with progress:
        return compare_pictures(plan.prepared, on_progress)


def _page(plan: Plan, comparison: Comparison, dataset: TrainingDataset | ForeignDataset, stop_request: StopRequest) -> Page:
    def load(place: BatchPlace) -> Batch:
        stop_request.check()
        return dataset[place]

    orders = [make_order(plan, rank) for rank in range(plan.world_size)]
    cards = CardMaker(plan.prepared, orders, load, comparison.lookalikes)
    return Page(
        name=plan.settings.saving.output_name or "last",
        made_at=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        figures=_figures(plan),
        notes=plan.notes,
        prepared=plan.prepared,
        report=plan.report,
        advice=advice_on(plan.report, comparison.undecodable),
        undecodable=comparison.undecodable,
        sheets=cards.sheets(),
        pairs=[cards.pairs(number) for number in range(len(plan.prepared))],
    )


def _figures(plan: Plan) -> dict[str, str]:
    length, model = plan.length, plan.settings.model
    return {
        "steps": f"{length.first_step} to {length.last_step}",
        "epochs": f"{length.epochs}, {length.steps_per_epoch} steps each",
        "effective batch": str(plan.effective_batch),
        "seed": str(plan.seed),
        "base model": f"{model.pretrained_model_name_or_path} ({plan.family.name})",
    }


def _stop_at_damage(comparison: Comparison) -> None:
    """Training would stop there, too, but later."""
    if comparison.undecodable:
        bad = [f"{error.path}: {error.reason}" for error in comparison.undecodable]
        raise UserError(
            *shortened(bad, "bad images"), "mend or remove bad images, or give --on_bad_image skip to train without them"
        )


def _walk(plan: Plan, dataset: TrainingDataset | ForeignDataset, stop_request: StopRequest) -> None:
    def load(places: Iterable[BatchPlace]) -> Iterator[Batch]:
        return make_loader(dataset, places, workers_of(plan, dataset))

    if plan.world_size > 1:
        print(f"these are the batches of the first of {plan.world_size} processes")
    walk = BatchWalk(
        prepared=plan.prepared,
        order=make_order(plan, rank=0),
        load=load,
        first_step=plan.length.first_step,
        last_step=plan.length.last_step,
        folder=plan.output_dir / "debug_dataset",
        prefix=_prefix(plan),
    )
    walk.walk(pressed_keys(input_descriptor(), lambda: stop_request.wanted))


def _prefix(plan: Plan) -> str:
    """What the names of this run's files begin with."""
    name = plan.settings.saving.output_name
    return f"{name}_" if name else ""
