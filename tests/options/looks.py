"""What is looked at where two trainings are compared: each function tells of a trial what an option is to change."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from library.config.check import check_settings
from library.config.scripts import SCRIPTS
from library.data.validation import with_held_out
from library.errors import UserError
from library.optim.optimizers import trial_optimizer
from library.optim.schedulers import build_scheduler
from library.train.app import run as run_command
from library.train.console import OURS
from library.train.data_order import make_dataset, workers_of
from library.train.plan import Plan, make_plan
from library.train.sharing_plan import plan_sharing
from library.train.zero import engine_config
from library.types import Batch
from tests.options.trials import Trial, digests

Look = Callable[[Trial], Any]
LEVELS = ("debug", "info")


def if_possible(look: Look) -> Look:
    """The mistake that the person is told of counts, too."""

    def told(trial: Trial) -> Any:
        try:
            return look(trial)
        except UserError as error:
            return trial.plain(error.messages)

    return told


# --- the plan ---


def planned(trial: Trial) -> Any:
    """What is worked out before a model is loaded; nothing that only repeats an option."""
    plan = trial.plan
    facts = {
        "family": (plan.family.name, plan.family.objective),
        "data": [dataclasses.asdict(record) for dataset in with_held_out(plan.prepared) for record in dataset.records],
        "entries": [dataset.entries(epoch) for dataset in plan.prepared for epoch in (1, 2)],
        "to draw": [dataclasses.asdict(wanted) for dataset in plan.prepared for wanted in dataset.class_images],
        "report": plan.report.lines(),
        "prompts": [dataclasses.asdict(prompt) for prompt in plan.prompts],
        "length": (dataclasses.asdict(plan.length), plan.batches_per_epoch, plan.effective_batch),
        "files": [(file.name, file.kind, file.stays) for file in plan.files()],
        "validation": _measured(plan),
    }
    return trial.plain(facts)


def _measured(plan: Plan) -> Any:
    if plan.validation is None:
        return None
    due = [plan.validation.due(plan.length, step) for step in range(1, plan.length.last_step + 1)]
    return plan.validation.seed, plan.validation.places, plan.validation.timesteps, due


def shared(trial: Trial) -> Any:
    """What DeepSpeed would be told, were it here."""
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name, *rest: object() if name == "deepspeed" else find(name, *rest))
        plan = plan_sharing(trial.settings, 2, {"RANK": "0"})
        return plan.kind, engine_config(plan.deepspeed, plan.max_grad_norm, 2)


def workers(trial: Trial) -> int:
    return workers_of(trial.plan, make_dataset(trial.plan))


# --- batches and losses ---


def batches(trial: Trial) -> Any:
    """All that the first batches hold."""
    return trial.plain([_batch(batch) for batch in trial.batches])


def captions(trial: Trial) -> Any:
    return [batch.captions for batch in trial.batches]


def masks(trial: Trial) -> Any:
    return [_without_tensors(batch.masks) for batch in trial.batches]


def _batch(batch: Batch) -> dict[str, Any]:
    return {field.name: _without_tensors(getattr(batch, field.name)) for field in dataclasses.fields(batch) if field.name != "place"}


def _without_tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return digests({"": value})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _without_tensors(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def losses(trial: Trial) -> Any:
    return trial.losses


def files_of_batches(trial: Trial) -> Any:
    """What lies there once batches have been loaded."""
    trial = trial.fresh()
    assert trial.batches
    return list(trial.files())


def second_look(trial: Trial) -> Any:
    """What the caches find of pictures that were changed since the caches were filled."""
    trial = trial.fresh()
    assert trial.batches
    for picture, text in zip(sorted(trial.folder.glob("data/*/*.png")), sorted(trial.folder.glob("data/*/*.txt")), strict=True):
        picture.write_bytes((trial.folder / "others" / "1_toad" / "d.png").read_bytes())
        text.write_text("a zorb", encoding="utf-8")
    return trial.plain([_batch(batch) for batch in islice(trial.loaded_batches(), 3)])


# --- tensors ---


def begun(trial: Trial) -> Any:
    """The bits of the model, and of what is trained, before the first step."""
    return trial.beginning.bits


def types_begun(trial: Trial) -> Any:
    return {name: text.split()[0] for name, text in trial.beginning.bits.items()}


def trained(trial: Trial) -> Any:
    return trial.result.bits


def stored(trial: Trial) -> Any:
    """The bits of the saved file."""
    return trial.result.stored


# --- files ---


def files(trial: Trial) -> Any:
    return list(trial.result.files)


def files_begun(trial: Trial) -> Any:
    trial = trial.fresh()
    assert trial.prepared()
    return list(trial.files())


def samples(trial: Trial) -> Any:
    """The pictures that were drawn."""
    return {name: digest for name, digest in trial.result.files.items() if "/sample/" in name}


def header(name: str) -> Look:
    """What is stored under a name in the trained file's metadata."""

    def look(trial: Trial) -> Any:
        (metadata,) = trial.result.headers.values()
        return metadata.get(name)

    return look


def logs(part: Callable[[Path], Any]) -> Look:
    """A part of TensorBoard's logs, told by the folder that they lie in."""

    def look(trial: Trial) -> Any:
        assert trial.result
        return part(trial.folder / "logs")

    return look


def log_folders(folder: Path) -> Any:
    """The names of folders, but for the first, which tells the time."""
    return [path.relative_to(folder).parts[1:-1] for path in folder.rglob("events*")]


def log_prefixes(folder: Path) -> Any:
    return [path.name.rstrip("0123456789") for path in folder.glob("*")]


def log_suffixes(folder: Path) -> Any:
    return [re.sub(r"\d", "", path.suffix) for path in folder.rglob("events*")]  # others end in a number


def log_options(folder: Path) -> Any:
    return [path.name for path in folder.rglob("hparams.yml")]


# --- what a training tells ---


def noted(trial: Trial) -> Any:
    """What the person is told of options that go together oddly."""
    return trial.plain(check_settings(trial.settings))


def rates(trial: Trial) -> Any:
    """The learning rates, step by step."""
    return [event["lr"] for event in trial.result.events if event["event"] == "step"]


def rates_to_come(trial: Trial) -> Any:
    """The learning rates, step by step, as the scheduler has them for weights of no importance."""
    optimizer = trial_optimizer(trial.settings.optimizer)
    scheduler, found = build_scheduler(trial.settings.scheduler, optimizer, trial.plan.length.last_step), []
    for _ in range(trial.plan.length.last_step):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(0.0)
    return found


def rates_begun(trial: Trial) -> Any:
    return trial.beginning.rates


def extras(trial: Trial) -> Any:
    """What the method measures, step by step."""
    return [event.get("extras") for event in trial.result.events if event["event"] == "step"]


def steps(trial: Trial) -> Any:
    """What happened, in its order."""
    return [event["event"] for event in trial.result.events]


def said(trial: Trial) -> Any:
    """Where the sentences of a command go, and the files that it writes; in the place of a training is one that only speaks."""
    trial = trial.fresh()
    streams = {name: StringIO() for name in ("out", "err", "console")}
    console = Console(file=streams["console"], force_terminal=True, width=200)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(streams["out"]), redirect_stderr(streams["err"]), _log_as_it_was():
        patch.setattr("library.train.console.console", console)
        patch.setattr("library.train.run.train_by_plan", lambda plan, stop_request: _speak())
        patch.setattr("library.train.signals.StopRequest.listen", lambda self: None)
        run_command(SCRIPTS[trial.script], ["--config_file", str(trial.config)])
    heard = [(level, name) for level in LEVELS for name, stream in streams.items() if f"said at {level}" in stream.getvalue()]
    return heard, list(trial.files())


def _speak() -> int:
    for level in LEVELS:
        getattr(logging.getLogger("library.train.run"), level)(f"said at {level}")
    return 0


@contextmanager
def _log_as_it_was() -> Iterator[None]:
    """Afterwards."""
    loggers = [logging.getLogger(name) for name in OURS]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers, propagates, level in before:
            logger.handlers[:], logger.propagate = handlers, propagates
            logger.setLevel(level)


def going_on(trial: Trial) -> Any:
    """Where the training begins after one of a single step, with the same options, has left its state."""
    trial = trial.fresh()
    first = dataclasses.replace(trial, options=trial.options | {"resume": None, "max_train_steps": 1, "save_state": True})
    assert first.prepared().run() == 0
    return make_plan(trial.settings).length.first_step


# --- what is called ---


Facts = Callable[..., Any]


def calls(target: str, facts: Facts = lambda *_, **__: None) -> Look:
    """How often, and with what, a whole training calls a function."""
    return _calls(target, facts, _train)


def calls_before(target: str, facts: Facts = lambda *_, **__: None) -> Look:
    """The same for what comes before the first batch."""
    return _calls(target, facts, Trial.prepared)


def calls_loading(target: str, facts: Facts) -> Look:
    """The same for the loading of batches, and the caching before it."""
    return _calls(target, facts, lambda trial: list(trial.loaded_batches()))


def _calls(target: str, facts: Facts, work: Callable[[Trial], Any]) -> Look:
    def look(trial: Trial) -> Any:
        seen: list[Any] = []
        called = pkgutil.resolve_name(target)

        def spy(*arguments: Any, **keywords: Any) -> Any:
            seen.append(facts(*arguments, **keywords))
            return called(*arguments, **keywords)

        trial = trial.fresh()
        assert trial.bench.waiting(trial.script)  # whose making is not to be heard
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, spy)
            work(trial)
        return seen

    return look


def _train(trial: Trial) -> None:
    assert trial.prepared().run() == 0
