"""What a run's files are called, when they are due, and which of them retention lets go."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from library.config.options import SavingOptions

Moment = Literal["step", "epoch", "final", "best"]
Kind = Literal["weights", "words", "state"]  # words: those that are learned together with the network in the weights

DEFAULT_NAMES: dict[Moment, str] = {"final": "last", "epoch": "epoch", "step": "at", "best": "last"}  # where no output_name is given


@dataclass(frozen=True)
class SavePoint:
    """A point of the run at which something is saved."""

    moment: Moment
    step: int  # optimizer steps done
    epoch: int  # 1-based: the epoch that `step` belongs to

    @property
    def number(self) -> int:
        """What the name counts and retention compares."""
        return self.step if self.moment == "step" else self.epoch



@dataclass(frozen=True)
class RunLength:
    """How far a run goes. The last epoch may be a part of one."""

    first_step: int  # 1-based; of a resumed run, the step after the state's
    last_step: int
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        return -(-self.last_step // self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """The 1-based epoch that this 1-based step belongs to; before the first step, the first."""
        return max(0, step - 1) // self.steps_per_epoch + 1

    def finished_epochs(self, point: SavePoint) -> int:
        """What the metadata calls the epoch: in the middle of epoch 3, two epochs are finished."""
        if point.moment == "best":
            return point.step // self.steps_per_epoch
        return point.epoch - 1 if point.moment == "step" else point.epoch


def base_name(output_name: str | None, point: SavePoint) -> str:
    """The name of the point's files without extension."""
    base = output_name or DEFAULT_NAMES[point.moment]
    if point.moment == "best":
        return f"{base}-best"
    if point.moment == "step":
        return f"{base}-step{point.step:08d}"
    return f"{base}-{point.epoch:06d}" if point.moment == "epoch" else base


def weights_name(options: SavingOptions, point: SavePoint, kind: Kind = "weights") -> str:
    """The file of the trained weights, or the folder, for whole models in Diffusers layout; or the file of the words beside them."""
    name = base_name(options.output_name, point) + ("-words" if kind == "words" else "")
    return name if saves_folders(options) else f"{name}.{options.save_model_as}"


def saves_folders(options: SavingOptions) -> bool:
    return options.save_model_as in ("diffusers", "diffusers_safetensors")


def state_name(options: SavingOptions, point: SavePoint) -> str:
    """The folder with all that a resumed run needs."""
    return f"{base_name(options.output_name, point)}-state"


def epoch_interval(options: SavingOptions, epochs: int) -> int | None:
    """Every how many epochs weights are saved; None: never."""
    if options.save_n_epoch_ratio:
        return max(1, epochs // options.save_n_epoch_ratio)
    return options.save_every_n_epochs


def due_points(options: SavingOptions, length: RunLength, step: int) -> list[SavePoint]:
    """What is saved after this step, in this order. The last epoch has no files of its own: the final ones are its."""
    epoch, points = length.epoch_of(step), []
    if options.save_every_n_steps and step % options.save_every_n_steps == 0:
        points.append(SavePoint("step", step, epoch))
    interval = epoch_interval(options, length.epochs)
    ends_epoch = step % length.steps_per_epoch == 0
    if interval and ends_epoch and epoch % interval == 0 and epoch < length.epochs:
        points.append(SavePoint("epoch", step, epoch))
    if step == length.last_step:
        points.append(SavePoint("final", step, epoch))
    return points


def state_due(options: SavingOptions, point: SavePoint) -> bool:
    """Whether a state folder is saved together with the point's weights."""
    return options.save_state or (point.moment == "final" and options.save_state_on_train_end)


def retention_bound(options: SavingOptions, length: RunLength, kind: Kind, point: SavePoint) -> int:
    """Once the files of `point` are complete, those of its kind and moment with a number up to this one may go; 0: none.

    After epoch E that is E - n x interval: n epochs with files stay. After step S it is S - n - 1: the last n steps stay.
    All up to there go, so that a changed interval leaves nothing behind. Later ones, which a run leaves that is resumed from an
    earlier state, stay.
    """
    if point.moment == "epoch":
        keep = _for_kind(kind, options.save_last_n_epochs, options.save_last_n_epochs_state)
        interval = epoch_interval(options, length.epochs)
        return max(0, point.epoch - keep * interval) if keep and interval else 0
    if point.moment == "step":
        keep = _for_kind(kind, options.save_last_n_steps, options.save_last_n_steps_state)
        return max(0, point.step - keep - 1) if keep else 0
    return 0


def _for_kind(kind: Kind, weights: int | None, state: int | None) -> int | None:
    return state if kind == "state" and state is not None else weights


@dataclass(frozen=True)
class PlannedFile:
    """A file or folder that a run will write."""

    name: str
    kind: Kind
    point: SavePoint
    stays: bool  # False: retention removes it in the course of the run


def planned_files(
    options: SavingOptions, length: RunLength, with_best: bool = False, trained: Sequence[Kind] = ("weights",)
) -> list[PlannedFile]:
    """Every file and state folder that the run will write, in that order, but that the best weights come last.

    trained: the kinds of files with trained weights.
    """
    written = list(_written(options, length, trained))
    if with_best:
        best = SavePoint("best", length.last_step, length.epochs)
        written += [(weights_name(options, best, kind), kind, best) for kind in trained]
    bounds = {(kind, point.moment): retention_bound(options, length, kind, point) for _, kind, point in written}  # the last one's
    return [PlannedFile(name, kind, point, point.number > bounds[kind, point.moment]) for name, kind, point in written]


def _written(options: SavingOptions, length: RunLength, trained: Sequence[Kind]) -> Iterator[tuple[str, Kind, SavePoint]]:
    for step in _steps_with_saves(options, length):
        for point in due_points(options, length, step):
            yield from ((weights_name(options, point, kind), kind, point) for kind in trained)
            if state_due(options, point):
                yield state_name(options, point), "state", point


def _steps_with_saves(options: SavingOptions, length: RunLength) -> list[int]:
    """The steps after which something may be due; all others are skipped, for runs have hundreds of thousands."""
    steps = {length.last_step}
    for interval in (options.save_every_n_steps, length.steps_per_epoch):
        if interval:
            steps.update(range(interval, length.last_step + 1, interval))
    return sorted(step for step in steps if step >= length.first_step)


def planned_bytes(planned: list[PlannedFile], expected_bytes: dict[Kind, int]) -> int:
    """Room that a run needs: all that stays, and one more of each kind, for old files go only after the new ones are there."""
    kinds = {file.kind for file in planned if not file.stays or file.point.moment == "best"}
    return sum(expected_bytes[file.kind] for file in planned if file.stays) + sum(expected_bytes[kind] for kind in kinds)
