"""Everything that is known of a run before a model is loaded: what it trains on, how long, what it writes, what it needs."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.checkpoint.dataset_facts import dataset_identity
from library.checkpoint.files import free_space_check, readable_size, writable_check
from library.checkpoint.identity import RunIdentity, check_same_run, run_identity
from library.checkpoint.naming import Kind, PlannedFile, RunLength, planned_bytes, planned_files
from library.checkpoint.resume import FoundState, find_state
from library.config.check import check_settings
from library.config.datasets import load_dataset_settings
from library.config.load import Settings
from library.data.cache import check_cacheable
from library.data.order import TrainingOrder
from library.data.records import PreparedDataset
from library.data.report import DataReport, data_report
from library.data.sources import prepare_datasets
from library.errors import UserError
from library.families.base import Family
from library.families.detect import identify
from library.methods.network_module import check_network
from library.optim.optimizers import check_optimizer
from library.optim.schedulers import check_scheduler
from library.sampling.prompts import SamplePrompt, read_prompts

DEFAULT_STEPS = 1600
BYTES_PER_ADAM_WEIGHT = 16  # fp32 weight, gradient and two moments
BYTES_OF_DTYPE = {"no": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    settings: Settings
    seed: int
    world_size: int
    family: Family
    prepared: list[PreparedDataset]
    report: DataReport
    prompts: list[SamplePrompt]
    resume: FoundState | None
    identity: RunIdentity
    length: RunLength
    batches_per_epoch: int
    notes: list[str]

    @property
    def output_dir(self) -> Path:
        return Path(self.settings.saving.output_dir or "")

    @property
    def runs_folder(self) -> Path:
        """Where the records of the runs of this name are."""
        return self.output_dir / f"{self.settings.saving.output_name or 'last'}-runs"

    @property
    def effective_batch(self) -> int:
        largest = max(dataset.settings.batch_size for dataset in self.prepared)
        return largest * self.world_size * self.settings.training.gradient_accumulation_steps

    def files(self) -> list[PlannedFile]:
        return planned_files(self.settings.saving, self.length)

    def memory_bytes(self) -> int:
        """A rough lower bound of what the weights alone take; activations depend on resolution and batch size."""
        return sum(self.family.parameter_counts().values()) * BYTES_OF_DTYPE[self.settings.training.mixed_precision]

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        length, training = self.length, self.settings.training
        kept = [file.name for file in self.files() if file.stays]
        parameters = sum(self.family.parameter_counts().values())
        accumulation = training.gradient_accumulation_steps
        return [
            *self.report.lines(),
            *(f"note: {note}" for note in self.notes),
            f"base model: {self.settings.model.pretrained_model_name_or_path} ({self.family.name}, {self.family.objective})",
            f"memory: at least {readable_size(self.memory_bytes())} for {parameters / 1e6:.1f} M parameters, pictures on top",
            f"batches per epoch: {self.batches_per_epoch}; optimizer steps per epoch: {length.steps_per_epoch}",
            f"steps: {length.first_step} to {length.last_step}, {length.epochs} epochs; seed {self.seed}",
            f"effective batch: {self.effective_batch} (batch x {self.world_size} processes x {accumulation} accumulated)",
            f"files kept in {self.output_dir}: {', '.join(kept[:8])}{f' and {len(kept) - 8} more' if len(kept) > 8 else ''}",
        ]


def make_plan(settings: Settings) -> Plan:
    """Check all that needs no model, every mistake at once, and work out the plan."""
    saving = settings.saving
    notes = [*settings.notes, *check_settings(settings)]
    found = _collect(
        identify=lambda: identify(settings.model),
        datasets=lambda: load_dataset_settings(settings),
        prompts=lambda: (
            read_prompts(Path(settings.sampling.sample_prompts), settings.sampling.sample_sampler)
            if settings.sampling.sample_prompts
            else []
        ),
        resume=lambda: find_state(saving.resume, saving) if saving.resume else None,
        optimizer=lambda: check_optimizer(settings.optimizer),
        network=lambda: check_network(settings.network),
        output=lambda: writable_check(saving.output_dir or ""),
    )
    resume: FoundState | None = found["resume"]
    seed = _seed(settings, resume, notes)
    prepared = prepare_datasets(found["datasets"], settings.data.on_bad_image)
    if settings.data.cache_latents:
        check_cacheable(prepared)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    order = TrainingOrder(prepared, seed, settings.training.gradient_accumulation_steps, 0, world_size)
    length = _run_length(settings, order.steps_per_epoch, resume, notes)
    identity = _identity(settings, resume, seed, world_size, prepared, notes)
    check_scheduler(settings.scheduler, settings.optimizer, length.last_step)
    return Plan(
        settings=settings,
        seed=seed,
        world_size=world_size,
        family=found["identify"],
        prepared=prepared,
        report=data_report(prepared),
        prompts=found["prompts"],
        resume=resume,
        identity=identity,
        length=length,
        batches_per_epoch=order.batches_per_epoch,
        notes=notes,
    )


def _collect(**checks: Callable[[], Any]) -> dict[str, Any]:
    """Run every check; the mistakes of all of them are reported at once."""
    results: dict[str, Any] = {}
    messages: list[str] = []
    for name, check in checks.items():
        try:
            results[name] = check()
        except UserError as error:
            messages += error.messages
    if messages:
        raise UserError(*messages)
    return results


def _seed(settings: Settings, resume: FoundState | None, notes: list[str]) -> int:
    if settings.training.seed is not None:
        return settings.training.seed
    if resume is not None:
        return resume.identity.seed
    seed = random.SystemRandom().randrange(2**32)
    notes.append(f"no seed was given: drew {seed}")
    return seed


def _identity(
    settings: Settings, resume: FoundState | None, seed: int, world_size: int, prepared: list[PreparedDataset], notes: list[str]
) -> RunIdentity:
    """Who this run is; a run that goes on from a state must be the one that the state belongs to."""
    lineage = resume.identity.lineage if resume else uuid.uuid4().hex
    identity = run_identity(settings, lineage, seed, world_size, dataset_identity(prepared))
    if resume is not None:
        notes += [*resume.skipped, *check_same_run(resume.folder, resume.identity, identity)]
        notes.append(f"resuming from {resume.folder}, where {resume.current_step} steps are done")
    return identity


def _run_length(settings: Settings, steps_per_epoch: int, resume: FoundState | None, notes: list[str]) -> RunLength:
    """Where the run begins and ends, in optimizer steps."""
    training, saving = settings.training, settings.saving
    last_step = training.max_train_steps
    if training.max_train_epochs:
        last_step = training.max_train_epochs * steps_per_epoch
        if settings.given("max_train_steps"):
            notes.append(f"max_train_epochs and max_train_steps are both given: the epochs decide, {last_step} steps")
    elif not settings.given("max_train_steps"):
        notes.append(f"neither max_train_steps nor max_train_epochs is given: the default is {DEFAULT_STEPS} steps")
    asked = saving.initial_step
    if asked is None and saving.initial_epoch is not None:
        asked = (saving.initial_epoch - 1) * steps_per_epoch
    if resume is not None and asked not in (None, resume.current_step):
        raise UserError(
            f"initial_step / initial_epoch say that {asked} steps are done, the state {resume.folder} says "
            f"{resume.current_step}: delete initial_step and initial_epoch, the state knows"
        )
    done = resume.current_step if resume is not None else asked or 0
    if done >= last_step:
        raise UserError(
            f"max_train_steps: {done} steps are done already and {last_step} are asked for in all; give a larger max_train_steps "
            "or max_train_epochs (they count from the very beginning)"
        )
    return RunLength(done + 1, last_step, steps_per_epoch)


def check_space(plan: Plan, expected_bytes: dict[Kind, int]) -> None:
    """UserError if the disk cannot hold all that the run is going to keep."""
    free_space_check(plan.output_dir, planned_bytes(plan.files(), expected_bytes))
