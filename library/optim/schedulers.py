"""Learning rate schedulers: checked without a model, stepped once per optimizer step.

They are never handed to accelerate, which would step them once per process. A run that continues builds optimizer and
scheduler first and loads both states then.
"""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from library.errors import UserError
from library.optim.arguments import check_arguments, missing_arguments, parse_arguments
from library.optim.chain import members_of
from library.optim.names import find_by_path, likely_names
from library.optim.optimizers import is_schedule_free, trial_optimizer
from library.optim.schedules import SCHEDULES, changed_options, check_applicable, schedule_arguments, steps_of

if TYPE_CHECKING:
    from library.config.options import OptimizerOptions, SchedulerOptions

logger = logging.getLogger(__name__)

ADAFACTOR = "adafactor"  # the one name that is not in SCHEDULES
RUNNING_LOSS_DECAY = 0.99
_OPTION = "lr_scheduler_args"
_RESERVED = {
    "optimizer": "it follows from optimizer_type; remove it",
    "last_epoch": "it follows from the place in the run; remove it",
    "num_training_steps": "write max_train_steps instead",
}
_EXAMPLES = {"step_rules": "step_rules='1:100,0.1:200,0.01'"}


class Scheduler:
    """A scheduler of torch behind the one interface that the loop knows."""

    def __init__(self, scheduler: Any):
        self.scheduler = scheduler

    def step(self, loss: float) -> None:
        """After each optimizer step; `loss` is that of the step, the same in all processes."""
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict)


class PlateauScheduler(Scheduler):
    """Lowers the rate when the loss stops falling: a running mean of it, as the loss of one step is mostly noise."""

    def __init__(self, scheduler: ReduceLROnPlateau):
        super().__init__(scheduler)
        self.total, self.weight = 0.0, 0.0

    def step(self, loss: float) -> None:
        self.total = RUNNING_LOSS_DECAY * self.total + loss
        self.weight = RUNNING_LOSS_DECAY * self.weight + 1
        self.scheduler.step(self.total / self.weight)

    def state_dict(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler.state_dict(), "total": self.total, "weight": self.weight}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self.total, self.weight = state_dict["total"], state_dict["weight"]


class RelativeStepScheduler(Scheduler):
    """AdaFactor with relative_step sets its rate itself; this shows it in the parameter groups.

    transformers' AdafactorSchedule does the same, but only while the gradients are kept after a step.
    """

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer

    def step(self, loss: float) -> None:
        for worker in members_of(self.optimizer):
            for group in worker.param_groups:
                state = worker.state.get(group["params"][0])
                if state:
                    group["lr"] = float(worker._get_lr(group, state))  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What there is to know is in the optimizer's state."""


def check_scheduler(options: SchedulerOptions, optimizer_options: OptimizerOptions, max_train_steps: int | None) -> None:
    """Builds the scheduler for an optimizer of no importance; `max_train_steps` may not be known yet."""
    optimizer = trial_optimizer(optimizer_options)
    build_scheduler(options, optimizer, max_train_steps or 1000)
    if _sets_rate_itself(optimizer):
        without_effect = changed_options(options) - ({"lr_scheduler"} if options.lr_scheduler == ADAFACTOR else set())
        if without_effect:
            names = ", ".join(sorted(without_effect))
            logger.warning("%s sets its learning rate itself; without effect: %s", type(optimizer).__name__, names)
    elif options.lr_scheduler_type and options.lr_scheduler != "constant":
        logger.warning("lr_scheduler_type %s replaces lr_scheduler %s", options.lr_scheduler_type, options.lr_scheduler)
    elif max_train_steps and steps_of(options.lr_warmup_steps, max_train_steps) >= max_train_steps:
        logger.warning("the warm-up, lr_warmup_steps = %s, is not over when the training ends", options.lr_warmup_steps)


def build_scheduler(options: SchedulerOptions, optimizer: Optimizer, max_train_steps: int) -> Scheduler:
    """The scheduler for the optimizer, whose groups have the rate to start from; lengths are in optimizer steps."""
    _check_name(options.lr_scheduler, optimizer)
    if _has_relative_step(optimizer):
        return RelativeStepScheduler(optimizer)
    if is_schedule_free(optimizer):
        return Scheduler(_named_scheduler("constant", {}, {}, optimizer))
    arguments = parse_arguments(options.lr_scheduler_args, _OPTION)
    if options.lr_scheduler_type:
        scheduler = _any_scheduler(options, arguments, optimizer)
    else:
        check_applicable(options, SCHEDULES[options.lr_scheduler].parameters, options.lr_scheduler)
        ours = schedule_arguments(SCHEDULES[options.lr_scheduler], options, max_train_steps)
        scheduler = _named_scheduler(options.lr_scheduler, ours, arguments, optimizer)
    return PlateauScheduler(scheduler) if isinstance(scheduler, ReduceLROnPlateau) else Scheduler(scheduler)


def _any_scheduler(options: SchedulerOptions, arguments: dict[str, Any], optimizer: Optimizer) -> Any:
    name = options.lr_scheduler_type
    cls = find_by_path(name, "lr_scheduler_type", "torch.optim.lr_scheduler")
    is_optimizer = isinstance(cls, type) and issubclass(cls, Optimizer)
    if is_optimizer or not (hasattr(cls, "step") and hasattr(cls, "load_state_dict")):
        raise UserError(f'lr_scheduler_type = "{name}": this is not a scheduler class; write StepLR or package.module.Class')
    check_applicable(options, {}, f"lr_scheduler_type {name}")
    return _make(cls, {}, arguments, optimizer, f"lr_scheduler_type {name}")


def _named_scheduler(name: str, ours: dict[str, Any], given: dict[str, Any], optimizer: Optimizer) -> Any:
    schedule = SCHEDULES[name]
    function = find_by_path(schedule.path, "lr_scheduler", "")
    if schedule.needed and schedule.needed not in ours and "min_lr" not in given:
        raise UserError(f"lr_scheduler {name} needs lr_scheduler_min_lr_ratio, the lowest rate as a part of the first: 0.1")
    return _make(function, ours, given, optimizer, f"lr_scheduler {name}")


def _make(function: Any, ours: dict[str, Any], given: dict[str, Any], optimizer: Optimizer, title: str) -> Any:
    """Calls the library, after its signature was asked."""
    reserved = dict.fromkeys(ours, "there is an option of its own for it; remove it here") | _RESERVED
    check_arguments(function, given, _OPTION, reserved)
    missing = missing_arguments(function, {"optimizer", *ours, *given})
    if missing:
        example = _EXAMPLES.get(missing[0], f"{missing[0]}=...")
        raise UserError(f'{title} needs {", ".join(missing)}: write {_OPTION} = ["{example}"]')
    try:
        return function(optimizer, **ours, **given)
    except Exception as error:
        examples = "".join(f"; as in {_EXAMPLES[name]}" for name in given if name in _EXAMPLES)
        raise UserError(f"{title} refuses its arguments: {error}{examples}") from error


def _check_name(name: str, optimizer: Optimizer) -> None:
    if name == ADAFACTOR and not _has_relative_step(optimizer):
        raise UserError(f"lr_scheduler {name} is for optimizer_type AdaFactor with relative_step=True; write another: constant")
    if name not in SCHEDULES and name != ADAFACTOR:
        raise UserError(f'lr_scheduler = "{name}" is not known; {likely_names(name, list(SCHEDULES))}')


def _has_relative_step(optimizer: Optimizer) -> bool:
    return bool(optimizer.defaults.get("relative_step"))


def _sets_rate_itself(optimizer: Optimizer) -> bool:
    return _has_relative_step(optimizer) or is_schedule_free(optimizer)
