"""Learning rate schedules by name: which library function each is, and which of our options it reads."""
from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from library.errors import UserError

if TYPE_CHECKING:
    from library.config.options import SchedulerOptions

# Options and the parameters that the libraries have for them.
_WARM_UP = {"lr_warmup_steps": "num_warmup_steps"}
_CYCLES = {"lr_scheduler_num_cycles": "num_cycles"}
_POWER = {"lr_scheduler_power": "power"}
_TIMESCALE = {"lr_scheduler_timescale": "timescale"}
_LOWEST_RATE = {"lr_scheduler_min_lr_ratio": "min_lr_rate"}
_DECAY = {"lr_decay_steps": "num_decay_steps", "lr_scheduler_min_lr_ratio": "min_lr_ratio"}


@dataclass(frozen=True)
class Schedule:
    """A library's schedule: `parameters` maps each of our options that it reads to the name of the argument."""

    path: str
    parameters: dict[str, str] = field(default_factory=dict)
    needs_total: bool = False  # argument num_training_steps
    half_cycles: bool = False  # a cycle of ours goes down only; the library's goes down and up
    needed: str = ""  # an argument that the library needs although its signature does not say so


SCHEDULES = {
    "constant": Schedule("diffusers.optimization.get_constant_schedule"),
    "constant_with_warmup": Schedule("diffusers.optimization.get_constant_schedule_with_warmup", _WARM_UP),
    "linear": Schedule("diffusers.optimization.get_linear_schedule_with_warmup", _WARM_UP, needs_total=True),
    "cosine": Schedule("diffusers.optimization.get_cosine_schedule_with_warmup", _WARM_UP, needs_total=True),
    "cosine_with_restarts": Schedule(
        "diffusers.optimization.get_cosine_with_hard_restarts_schedule_with_warmup", _WARM_UP | _CYCLES, needs_total=True
    ),
    "polynomial": Schedule(
        "diffusers.optimization.get_polynomial_decay_schedule_with_warmup", _WARM_UP | _POWER, needs_total=True
    ),
    "piecewise_constant": Schedule("diffusers.optimization.get_piecewise_constant_schedule"),
    "inverse_sqrt": Schedule("transformers.optimization.get_inverse_sqrt_schedule", _WARM_UP | _TIMESCALE),
    "cosine_with_min_lr": Schedule(
        "transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup",
        _WARM_UP | _CYCLES | _LOWEST_RATE, needs_total=True, half_cycles=True, needed="min_lr_rate",
    ),
    "cosine_warmup_with_min_lr": Schedule(
        "transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
        _WARM_UP | _CYCLES | _LOWEST_RATE, needs_total=True, half_cycles=True, needed="min_lr_rate",
    ),
    "warmup_stable_decay": Schedule(
        "transformers.optimization.get_wsd_schedule", _WARM_UP | _CYCLES | _DECAY, needs_total=True, half_cycles=True
    ),
    "reduce_lr_on_plateau": Schedule("torch.optim.lr_scheduler.ReduceLROnPlateau"),
}  # fmt: skip


def schedule_arguments(schedule: Schedule, options: SchedulerOptions, max_train_steps: int) -> dict[str, Any]:
    """Arguments of the schedule's function that come from our options; those without a value are left to the library."""
    values = {option: getattr(options, option) for option in schedule.parameters}
    steps = {option: steps_of(value, max_train_steps) for option, value in values.items() if option.endswith("_steps")}
    if "lr_decay_steps" in steps and sum(steps.values()) > max_train_steps:
        total = " + ".join(f"{option} ({count})" for option, count in steps.items())
        raise UserError(f"{total} is more than max_train_steps ({max_train_steps}); write smaller numbers")
    values |= steps
    if schedule.half_cycles:
        values["lr_scheduler_num_cycles"] /= 2
    arguments = {schedule.parameters[option]: value for option, value in values.items() if value is not None}
    return arguments | ({"num_training_steps": max_train_steps} if schedule.needs_total else {})


def steps_of(count_or_part: int | float | None, max_train_steps: int) -> int:
    """Optimizer steps: a count as it is, a float as a part of all steps."""
    if isinstance(count_or_part, float):
        return int(count_or_part * max_train_steps)
    return count_or_part or 0


def changed_options(options: SchedulerOptions) -> set[str]:
    """Names of the options that are set to anything but their defaults."""
    values = {option.name: (getattr(options, option.name), option.default) for option in fields(options)}
    return {name for name, (value, default) in values.items() if value and value != default}


def check_applicable(options: SchedulerOptions, used: dict[str, str], name: str) -> None:
    """Refuses options that were changed although the schedule does not read them."""
    mistakes = []
    for option in sorted(changed_options(options) - used.keys()):
        readers = [reader for reader, schedule in SCHEDULES.items() if option in schedule.parameters]
        if not readers:
            continue
        instead = f"it is for {', '.join(readers)}"
        if (name, option) == ("constant", "lr_warmup_steps"):
            instead = "write lr_scheduler constant_with_warmup"
        mistakes.append(f"{option} = {getattr(options, option)} does not apply to {name}; {instead}, or remove it")
    if mistakes:
        raise UserError(*mistakes)
