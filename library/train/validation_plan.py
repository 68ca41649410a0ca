"""What is measured by held-out images, and when: known before a model is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.checkpoint.best import Best
from library.checkpoint.naming import RunLength
from library.config.options import ValidationOptions
from library.config.settings import Settings
from library.data.records import PreparedDataset
from library.data.validation import validation_datasets, validation_places
from library.errors import UserError
from library.types import BatchPlace

NEED_HELD_OUT = (
    "validate_every_n_epochs", "validate_every_n_steps", "max_validation_steps", "save_best", "early_stopping_patience",
)  # fmt: skip


@dataclass(frozen=True)
class ValidationPlan:
    """The measurements of a run."""

    options: ValidationOptions
    seed: int  # of the noise
    held_out: int  # images
    places: list[BatchPlace]  # of what is measured, all processes together, in order
    timesteps: list[int]
    best: Best  # before this run

    @property
    def image_count(self) -> int:
        """How many images are measured."""
        return sum(len(place.samples) for place in self.places)

    def due(self, length: RunLength, step: int) -> tuple[bool, bool]:
        """Whether images are measured after this step: by the count of steps; by that of epochs, or because it is the last."""
        options = self.options
        in_steps = options.validate_every_n_steps is not None and step % options.validate_every_n_steps == 0
        epoch, step_in_epoch = divmod(step, length.steps_per_epoch)
        in_epochs = step_in_epoch == 0 and epoch % (options.validate_every_n_epochs or 1) == 0
        return in_steps, in_epochs or step == length.last_step

    def lines(self) -> list[str]:
        """For the plan of the run."""
        options = self.options
        cadence = f"every {_counted(options.validate_every_n_epochs or 1, 'epoch')}"
        if options.validate_every_n_steps:
            cadence += f" and every {_counted(options.validate_every_n_steps, 'step')}"
        measured = "" if self.image_count == self.held_out else f", {self.image_count} of them measured"
        lines = [f"validation: {self.held_out} images held out{measured}, {len(self.timesteps)} timesteps each, {cadence}"]
        if options.early_stopping_patience:
            lines.append(f"early stopping: patience {options.early_stopping_patience}, counted in validations without a lower loss")
        return lines


def plan_validation(
    settings: Settings, prepared: Sequence[PreparedDataset], seed: int, stored: Best | None, notes: list[str]
) -> ValidationPlan | None:
    """None if no image is held out; UserError with every option that would need some.

    seed: the run's. stored: of the state that the run goes on from.
    """
    datasets = validation_datasets(prepared)
    if not datasets:
        useless = [name for name in NEED_HELD_OUT if settings.changed(name)]
        if useless:
            raise UserError(*(_nothing_held_out(settings, name) for name in useless))
        return None
    from library.diffusion.noise import interior_timesteps, timestep_range  # imports torch, which takes seconds

    options, noise = settings.validation, settings.noise
    seeds = [subset.validation_seed for dataset in datasets for subset in dataset.settings.subsets]
    seed = next((given for given in seeds if given is not None), seed)
    places = validation_places(datasets, len(prepared), seed, options.max_validation_steps)
    timesteps = interior_timesteps(*timestep_range(noise.min_timestep, noise.max_timestep))
    facts = [
        [seed, timesteps, options.max_validation_steps, dataclasses.asdict(noise), dataclasses.asdict(settings.loss)],
        *([(Path(record.path).name, record.size, record.bucket, record.caption) for record in dataset.records] for dataset in datasets),
        [dataset.settings.batch_size for dataset in datasets],
    ]
    return ValidationPlan(
        options=options,
        seed=seed,
        held_out=sum(len(dataset.records) for dataset in datasets),
        places=places,
        timesteps=timesteps,
        best=_best_so_far(hashlib.sha256(json.dumps(facts).encode()).hexdigest(), stored, notes),
    )


def _best_so_far(fingerprint: str, stored: Best | None, notes: list[str]) -> Best:
    """What the state says, if it was measured as it is now. `fingerprint`: of all that a loss depends on besides the model."""
    if stored is not None and stored.measured == fingerprint:
        return stored
    if stored is not None:
        notes.append("held-out images are others, or measured in another way, than in the state: the best so far is forgotten")
    return Best(fingerprint)


def _nothing_held_out(settings: Settings, name: str) -> str:
    example = "validation_split = 0.1, or validation_split = 1.0 in a subset of the dataset file"
    return f"{settings.where(name)}: no image is held out of training to measure it by; set {example}, or remove {name}"


def _counted(count: int, noun: str) -> str:
    return noun if count == 1 else f"{count} {noun}s"
