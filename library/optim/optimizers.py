"""Optimizers by name: checked without a model, built for parameter groups."""
from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from library.errors import UserError
from library.optim.arguments import check_arguments, missing_arguments, parse_arguments
from library.optim.chain import OptimizerChain, members_of, parameters_of, split_groups
from library.optim.fused import FusedOptimizer
from library.optim.names import SHORT_NAMES, find_by_path
from library.optim.rounding import LOST_BITS

if TYPE_CHECKING:
    from library.config.options import OptimizerOptions

logger = logging.getLogger(__name__)

_OPTION = "optimizer_args"
_AT_ONCE = 2**25  # numbers of 16 bits that are stepped in float32 together
# Packages whose optimizers treat each tensor by itself, unless they find their rate: a part of the weights can be stepped alone.
_TENSOR_BY_TENSOR = ("bitsandbytes", "lion_pytorch", "schedulefree", "torch", "transformers")
_STEPPED = 2**14  # numbers of the weight for a trial; smaller ones bitsandbytes does not keep in 8 bits
_RESERVED = {
    "params": "what is trained follows from the method; remove it",
    "lr": "write learning_rate (or unet_lr, text_encoder_lr) instead",
}


@dataclass(frozen=True)
class OptimizerChoice:
    """A class and the arguments for it, besides parameters and learning rate."""

    cls: type[Any]  # of Optimizer; Any, as each has a signature of its own
    arguments: dict[str, Any]

    @property
    def finds_its_rate(self) -> bool:
        """D-Adaptation and Prodigy: the learning rate that is set is a factor of the one that they estimate."""
        return self.cls.__name__.startswith("DAdapt") or self.cls.__name__ == "Prodigy"

    @property
    def uses_relative_step(self) -> bool:
        """AdaFactor with a step size of its own: no learning rate is set."""
        return bool(self.arguments.get("relative_step"))

    @property
    def can_be_split(self) -> bool:
        """Whether several optimizers, each with a part of the weights, do what one does with all."""
        return not self.finds_its_rate and self.cls.__module__.partition(".")[0] in _TENSOR_BY_TENSOR

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """An optimizer for groups that each have a rate; libraries that need a rate as argument get the first one."""
        if self.uses_relative_step:
            without_rate = [{key: value for key, value in group.items() if key != "lr"} for group in groups]
            optimizer = self.cls(without_rate, lr=None, **self.arguments)
            for built, group in zip(optimizer.param_groups, groups, strict=True):
                built["lr"] = group["lr"]  # unused by AdaFactor; shown until the first step
            return optimizer
        optimizer = self.cls(groups, lr=groups[0]["lr"], **self.arguments)
        if is_schedule_free(optimizer):
            optimizer.train()
        return optimizer


def check_optimizer(options: OptimizerOptions, device: str = "cpu") -> None:
    """Finds the class, checks its arguments, and makes one for a parameter of no importance; needs no model. device: of the training."""
    choice = _choose(options)
    trial_optimizer(options)
    if choice.cls.__module__.startswith("bitsandbytes.") and device != "cpu":
        _try_step(choice, device)
    _check_fused(options, choice)
    rates = _given_rates(options)
    if choice.finds_its_rate and min(rates) <= 0.1:
        logger.warning(
            "%s finds its learning rate itself and multiplies it by the given one, now %g; 1.0 is usual",
            choice.cls.__name__, min(rates),
        )  # fmt: skip
    if choice.arguments.get("relative_step") is False and options.max_grad_norm:
        logger.warning("AdaFactor limits its updates itself; max_grad_norm = 0 is recommended with relative_step=False")


def trial_optimizer(options: OptimizerOptions) -> Optimizer:
    """The optimizer of the options for one small matrix, so that its own checks of its arguments are heard."""
    choice = _choose(options)
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    group = {"params": [parameter], "lr": _given_rates(options)[0], "name": "trial"}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some libraries print
            return choice.build([group])
    except Exception as error:
        raise UserError(f"{_OPTION}: {choice.cls.__name__} refuses its arguments: {error}") from error


def _try_step(choice: OptimizerChoice, device: str) -> None:
    """bitsandbytes brings code for some versions of CUDA; where this one is not among them, it says so at the first step."""
    parameter = torch.nn.Parameter(torch.zeros(_STEPPED, device=device))
    parameter.grad = torch.ones_like(parameter)
    name = choice.cls.__name__
    try:
        choice.build([{"params": [parameter], "lr": 1e-3, "name": "trial"}]).step()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        remedy = "pip install --upgrade bitsandbytes, or choose another optimizer_type"
        raise UserError(f"optimizer_type: {name} makes no step on {device} ({reason}); {remedy}") from error


def _check_fused(options: OptimizerOptions, choice: OptimizerChoice) -> None:
    if options.fused_backward_pass and choice.cls.__name__ != "Adafactor":
        raise UserError(
            'fused_backward_pass works with optimizer_type = "AdaFactor" only; for others write fused_optimizer_groups = 10 instead'
        )
    if options.fused_optimizer_groups and not choice.can_be_split:
        reason = f"{choice.cls.__name__} looks at all weights together"
        raise UserError(f"fused_optimizer_groups: {reason}; remove it, or choose another optimizer_type")


def unfit_for_parts(options: OptimizerOptions, only_torchs: bool) -> str | None:
    """Why the optimizer cannot step parts of tensors, if it cannot. only_torchs: they are DTensors, which few others know."""
    choice = _choose(options)
    name = choice.cls.__name__
    if only_torchs and choice.cls.__module__.partition(".")[0] != "torch":
        return f"{name} is not one of PyTorch's own optimizers"
    if not choice.can_be_split or name == "Adafactor":
        return f"{name} looks at whole tensors, or at all of them together"
    return f"{name} keeps two sets of weights" if is_schedule_free(trial_optimizer(options)) else None


def build_optimizer(options: OptimizerOptions, groups: list[dict[str, Any]], seed: int = 0) -> Optimizer:
    """The optimizer for groups of `params`, `lr` (None: learning_rate) and `name`. seed: of the rounding of 16-bit weights."""
    choice = _choose(options)
    groups = [group | {"lr": options.learning_rate if group["lr"] is None else group["lr"]} for group in groups]
    portions = _portions(options, choice, groups)
    if portions is None:
        return choice.build(groups)
    members = [choice.build(portion) for portion in portions]
    if options.fused_backward_pass or options.fused_optimizer_groups:
        return FusedOptimizer(members, options.max_grad_norm, seed)
    return OptimizerChain(members, seed, skips_rate_0=choice.finds_its_rate)


def _portions(
    options: OptimizerOptions, choice: OptimizerChoice, groups: list[dict[str, Any]]
) -> list[list[dict[str, Any]]] | None:
    """The parameter groups of several optimizers, where one for all would not do."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    if options.fused_backward_pass:
        return split_groups(groups, most=1)
    if options.fused_optimizer_groups:
        return split_groups(groups, -(-sum(parameter.numel() for parameter in parameters) // options.fused_optimizer_groups))
    if choice.finds_its_rate:
        rates = dict.fromkeys(group["lr"] for group in groups)
        return [[group for group in groups if group["lr"] == rate] for rate in rates]
    if any(parameter.dtype in LOST_BITS for parameter in parameters):
        return split_groups(groups, _AT_ONCE) if choice.can_be_split else [groups]
    return None


def optimizer_description(options: OptimizerOptions) -> str:
    """`module.Class(k=v,...)` with the arguments that were given or follow from the short name, for metadata."""
    choice = _choose(options)
    arguments = ",".join(f"{name}={value}" for name, value in choice.arguments.items())
    return f"{choice.cls.__module__}.{choice.cls.__name__}" + (f"({arguments})" if arguments else "")


def adapted_learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rate that is really used, by name of the group, for optimizers that find it themselves; else empty."""
    return {group["name"]: float(group["d"] * group["lr"]) for group in optimizer.param_groups if "d" in group}


def is_schedule_free(optimizer: Optimizer) -> bool:
    """Optimizers that keep an average of the weights beside the ones they train (arXiv 2405.15682)."""
    worker = members_of(optimizer)[0]
    return callable(getattr(worker, "train", None)) and callable(getattr(worker, "eval", None))


@contextlib.contextmanager
def evaluation_weights(optimizer: Any) -> Iterator[None]:
    """Inside, the trained parameters hold what should be saved or looked at; after it they are as before, to the bit.

    Schedule-free optimizers switch to their averaged weights; nothing happens for others, or inside another such block.
    The states of a run are saved outside.
    """
    real: Any = getattr(optimizer, "optimizer", optimizer)  # what accelerate wraps
    if not is_schedule_free(real) or not all(group.get("train_mode", True) for group in real.param_groups):
        yield
        return
    parameters = parameters_of(real)
    # Switching back computes the weights from the average, with rounding: a run that looked would differ from one that did not.
    copies = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    real.eval()
    try:
        yield
    finally:
        real.train()
        with torch.no_grad():
            for parameter, copy in zip(parameters, copies, strict=True):
                parameter.copy_(copy)


def _choose(options: OptimizerOptions) -> OptimizerChoice:
    written = options.optimizer_type or "AdamW"
    short = SHORT_NAMES.get(written.lower())
    names = tuple(known.name for known in SHORT_NAMES.values())
    cls = find_by_path(short.path if short else written, "optimizer_type", "torch.optim", names)
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)) or cls is Optimizer:
        raise UserError(f'optimizer_type = "{written}": this is not an optimizer class; write AdamW or package.module.Class')
    if "closure" in missing_arguments(cls.step, ()):
        raise UserError(f'optimizer_type = "{written}": it computes the loss several times in a step, which is not supported')
    given = parse_arguments(options.optimizer_args, _OPTION)
    check_arguments(cls, given, _OPTION, _RESERVED)
    arguments = (short.arguments if short else {}) | given
    if "relative_step" in inspect.signature(cls).parameters:
        arguments |= {"relative_step": arguments.get("relative_step", True)}
        if arguments.get("warmup_init"):
            arguments["relative_step"] = True
    return OptimizerChoice(cls, arguments)


def _given_rates(options: OptimizerOptions) -> list[float]:
    """The learning rates that parameter groups can have; 0 leaves a part out."""
    rates = [options.unet_lr, *(options.text_encoder_lr or (None,))]
    rates = [options.learning_rate if rate is None else rate for rate in rates]
    return [rate for rate in rates if rate > 0] or [options.learning_rate]
