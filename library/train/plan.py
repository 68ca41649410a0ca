"""Everything that is known of a run before a model is loaded: what it trains on, how long, what it writes, what it needs."""

from __future__ import annotations

import dataclasses
import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.checkpoint.dataset_facts import dataset_identity
from library.checkpoint.files import free_space_check, readable_size, writable_check
from library.checkpoint.hub import check_hub, fetch_state
from library.checkpoint.identity import RunIdentity, check_same_run, run_identity
from library.checkpoint.naming import Kind, PlannedFile, RunLength, planned_bytes, planned_files
from library.checkpoint.resume import FoundState, find_state
from library.config.check import check_settings
from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.load import Settings
from library.config.options import DataOptions
from library.data.cache import check_cacheable
from library.data.foreign import prepare_foreign
from library.data.order import TrainingOrder, largest_batch
from library.data.records import PreparedDataset
from library.data.report import DataReport, data_report
from library.data.sources import prepare_datasets
from library.data.templates import word_replacements
from library.data.text_cache import check_captions_cacheable
from library.data.wording import shortened_names
from library.errors import UserError
from library.families.base import Family
from library.families.detect import identify
from library.methods.network_module import check_network
from library.sampling.prompts import SamplePrompt, read_prompts
from library.train.memory import bytes_of_weight, check_memory_options, own_device
from library.train.method import check_method, settings_for_family, trained_files
from library.train.preservation import preservation_notes
from library.train.sharing_plan import WHOLE, SharingPlan, plan_sharing
from library.train.trackers import check_trackers
from library.train.validation_plan import ValidationPlan, plan_validation

CLASS_OPTIONS = ("dataset_class", "resolution", "max_data_loader_n_workers")  # of the data options: those that it leaves us
LEAST_ROOM = 2**20  # bytes; the smallest networks need more
BYTES_OF_DTYPE = {"no": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    settings: Settings
    seed: int
    world_size: int
    family: Family
    prepared: list[PreparedDataset]
    validation: ValidationPlan | None  # None: no image is held out
    report: DataReport
    prompts: list[SamplePrompt]
    resume: FoundState | None
    identity: RunIdentity
    length: RunLength
    batches_per_epoch: int
    notes: list[str]
    sharing: SharingPlan = WHOLE

    @property
    def resolved_settings(self) -> Settings:
        """The settings with the seed that is in use, given or drawn."""
        return dataclasses.replace(self.settings, training=dataclasses.replace(self.settings.training, seed=self.seed))

    @property
    def output_dir(self) -> Path:
        return Path(self.settings.saving.output_dir or "")

    @property
    def runs_folder(self) -> Path:
        """Where the records of the runs of this name are."""
        return self.output_dir / f"{self.settings.saving.output_name or 'last'}-runs"

    @property
    def effective_batch(self) -> int:
        return largest_batch(self.prepared) * self.world_size * self.settings.training.gradient_accumulation_steps

    def files(self) -> list[PlannedFile]:
        settings = self.settings
        return planned_files(settings.saving, self.length, settings.validation.save_best, trained_files(settings))

    def memory_bytes(self) -> int:
        """About what the weights alone take."""
        training = self.settings.training
        in_full = self.settings.script.method == "full" and not (training.full_fp16 or training.full_bf16)
        usual = BYTES_OF_DTYPE["no" if in_full else training.mixed_precision]
        counts = self.family.parameter_counts().items()
        return sum(count * bytes_of_weight(self.settings.memory, part, usual) for part, count in counts)

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        length, training = self.length, self.settings.training
        kept = [file.name for file in self.files() if file.stays]
        parameters = sum(self.family.parameter_counts().values())
        accumulation = training.gradient_accumulation_steps
        beside = ", and as many class pictures" if any(dataset.is_paired for dataset in self.prepared) else ""
        return [
            *self.report.lines(),
            *(f"note: {note}" for note in self.notes),
            f"base model: {self.settings.model.pretrained_model_name_or_path} ({self.family.name}, {self.family.objective})",
            f"memory: {readable_size(self.memory_bytes())} for the {parameters / 1e6:.1f} M parameters of the model; "
            "what is trained takes more (gradients, optimizer), and so do pictures",
            f"batches per epoch: {self.batches_per_epoch}; optimizer steps per epoch: {length.steps_per_epoch}",
            f"steps: {length.first_step} to {length.last_step}, {length.epochs} epochs; seed {self.seed}",
            f"effective batch: {self.effective_batch} (batch x {self.world_size} processes x {accumulation} accumulated){beside}",
            *(self.validation.lines() if self.validation else ()),
            f"files kept in {self.output_dir}: {shortened_names(kept)}",
        ]


def make_plan(settings: Settings) -> Plan:
    """Check all that needs no model, and work out the plan. What is written comes first, and takes a fraction of a second."""
    written = collect(notes=lambda: check_settings(settings), datasets=lambda: _datasets(settings))
    found = _check_what_is_named(settings, written["datasets"])
    family: Family = found["identify"]
    settings = settings_for_family(settings, family, written["datasets"])
    notes = [*settings.notes, *written["notes"], *family.notes]
    resume: FoundState | None = found["resume"]
    seed = _seed(settings, resume, notes)
    prepared: list[PreparedDataset] = found["prepared"]
    notes += check_method(settings, family, prepared)
    notes += preservation_notes(prepared)
    _check_caches(settings.data, prepared)
    validation = plan_validation(settings, prepared, seed, resume.best if resume else None, notes)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    _check_processes(settings, world_size)
    sharing = plan_sharing(settings, world_size)
    notes += sharing.notes
    order = TrainingOrder(prepared, seed, settings.training.gradient_accumulation_steps, 0, world_size)
    length = _run_length(settings, order.steps_per_epoch, resume, notes)
    identity = _identity(settings, resume, seed, world_size, prepared, notes)
    _check_scheduler(settings, length)
    return Plan(
        settings=settings,
        seed=seed,
        world_size=world_size,
        family=family,
        prepared=prepared,
        validation=validation,
        report=data_report(prepared),
        prompts=found["prompts"],
        resume=resume,
        identity=identity,
        length=length,
        batches_per_epoch=order.batches_per_epoch,
        notes=notes,
        sharing=sharing,
    )


def _datasets(settings: Settings) -> list[DatasetSettings]:
    """None, if a class of the user's makes the batches."""
    return [] if settings.data.dataset_class else load_dataset_settings(settings)


def _check_what_is_named(settings: Settings, datasets: list[DatasetSettings]) -> dict[str, Any]:
    """Look at every file, folder, module and class that the settings name; all mistakes in them are told at once."""
    from library.optim.optimizers import check_optimizer  # imports torch, which takes seconds

    saving = settings.saving
    found: dict[str, Any] = {}
    return collect(
        found,
        identify=lambda: identify(settings.model),
        prepared=lambda: _prepare(settings, datasets, found.get("identify")),
        prompts=lambda: _prompts(settings),
        resume=lambda: _state(settings),
        hub=lambda: check_hub(settings.hub),
        optimizer=lambda: check_optimizer(settings.optimizer, own_device()),
        network=lambda: check_the_network(settings, found.get("identify")) if settings.script.method == "adapter" else None,
        memory=lambda: check_memory_options(settings.memory, settings.training.mixed_precision),
        output=lambda: _check_output(saving.output_dir or ""),
        logs=lambda: writable_check(settings.logging.logging_dir, "logging_dir") if settings.logging.logging_dir else None,
        trackers=lambda: check_trackers(settings),
    )


def _state(settings: Settings) -> FoundState | None:
    """The state to go on from; one on the hub is downloaded."""
    resume = settings.saving.resume
    if resume and settings.hub.resume_from_huggingface:
        resume = str(fetch_state(resume, settings.hub))
    return find_state(resume, settings.saving) if resume else None


def _prepare(settings: Settings, datasets: list[DatasetSettings], family: Family | None) -> list[PreparedDataset]:
    """No family: the model is a mistake, which is told beside those in the data."""
    data = settings.data
    if family is not None:
        check_bucket_steps(datasets, family)
    if not data.dataset_class:
        return prepare_datasets(datasets, data.on_bad_image, family.latent_cache_suffix if family and data.cache_latents else None)
    where = settings.where("dataset_class")
    if data.resolution is None:
        raise UserError(f"{where}: the class is told the resolution, which is missing; give --resolution 512")
    prepared = prepare_foreign(
        data.dataset_class,
        settings.model.max_token_length,
        data.resolution,
        family.bucket_step if family else None,
        where,
        settings.training.debug_dataset,
    )
    names = [field.name for field in dataclasses.fields(data) if field.name not in CLASS_OPTIONS]
    if unused := [name for name in names if settings.changed(name)]:
        prepared.notes.append(f"{where}: the class decides about pictures and captions; not used are {', '.join(unused)}")
    return [prepared]


def check_the_network(settings: Settings, family: Family | None) -> None:
    """No family: the model is a mistake."""
    check_network(settings.network, family.name if family else "")


def check_bucket_steps(datasets: list[DatasetSettings], family: Family) -> None:
    """UserError if buckets have sides that the U-Net cannot halve as often as it does."""
    step = family.bucket_step
    mistakes = [
        f"{dataset.where} bucket_reso_steps: {dataset.bucket_reso_steps} is not divisible by {step}, which {family.name} needs; "
        f"write {step}, {2 * step}, ..."
        for dataset in datasets
        if dataset.enable_bucket and dataset.bucket_reso_steps % step
    ]
    if mistakes:
        raise UserError(*mistakes)


def _prompts(settings: Settings) -> list[SamplePrompt]:
    """What samples are drawn of, with all words that stand for the one that is learned."""
    if not settings.sampling.sample_prompts:
        return []
    prompts = read_prompts(Path(settings.sampling.sample_prompts), settings.sampling.sample_sampler)
    for word, words in word_replacements(settings.embedding):
        prompts = [dataclasses.replace(prompt, prompt=prompt.prompt.replace(word, words)) for prompt in prompts]
    return prompts


def _check_processes(settings: Settings, world_size: int) -> None:
    for name in ("fused_backward_pass", "fused_optimizer_groups"):
        if world_size > 1 and settings.changed(name):
            reason = "steps during the backward pass do not wait for other processes"
            raise UserError(f"{settings.where(name)}: {reason}; remove it, or train with --num_processes 1")

def _check_caches(data: DataOptions, prepared: list[PreparedDataset]) -> None:
    collect(
        latents=lambda: check_cacheable(prepared) if data.cache_latents else None,
        text=lambda: check_captions_cacheable(prepared, data.caption_variants) if data.cache_text_encoder_outputs else None,
    )


def _check_output(folder: str) -> None:
    """What a run needs is known once its network is made (`check_space`); a disk that is as good as full is told before."""
    writable_check(folder)
    free_space_check(folder, LEAST_ROOM)


def collect(found: dict[str, Any] | None = None, **checks: Callable[[], Any]) -> dict[str, Any]:
    """Run every check; the mistakes of all of them are reported at once.

    The results go into `found`, where a check can look for those of the checks before it: a mistake has left none.
    """
    found = {} if found is None else found
    messages: list[str] = []
    for name, check in checks.items():
        try:
            found[name] = check()
        except UserError as error:
            messages += error.messages
    if messages:
        raise UserError(*messages)
    return found


def _check_scheduler(settings: Settings, length: RunLength) -> None:
    from library.optim.schedulers import check_scheduler

    check_scheduler(settings.scheduler, settings.optimizer, length.last_step)


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
        notes.append(f"neither max_train_steps nor max_train_epochs is given: the default is {last_step} steps")
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
            f"max_train_steps: {last_step} steps are asked for in all, and {done} are done already"
            f"{f' in {resume.folder}' if resume else ''}: give a larger max_train_steps or max_train_epochs (they count from the "
            "very beginning)"
        )
    return RunLength(done + 1, last_step, steps_per_epoch)


def check_space(plan: Plan, expected_bytes: dict[Kind, int]) -> None:
    """UserError if the disk cannot hold all that the run is going to keep."""
    free_space_check(plan.output_dir, planned_bytes(plan.files(), expected_bytes))
