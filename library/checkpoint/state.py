"""The folder with all that a resumed run needs besides its settings: trained weights, optimizer, scheduler, place in the run."""
from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from library.checkpoint.best import Best
from library.checkpoint.identity import RunIdentity
from library.checkpoint.naming import SavePoint
from library.checkpoint.resume import FoundState, write_train_state
from library.errors import UserError

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.bin"
SCHEDULER_FILE = "scheduler.bin"
SCALER_FILE = "scaler.pt"
AVERAGE_FILE = "average.bin"
NAMED_AT_MOST = 3  # tensors named in a message
PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class StoredOptimizer(Stateful, Protocol):
    param_groups: list[dict[str, Any]]


@dataclass
class TrainingObjects:
    """What changes while a run goes on."""

    modules: Mapping[str, nn.Module]  # the trained ones, by name
    optimizer: StoredOptimizer
    scheduler: Stateful
    scaler: Stateful | None = None  # of float16 gradients
    average: Stateful | None = None  # of the weights (EMA)
    best: Best | None = None  # of a run that measures held-out images; not loaded here, for the plan needs it


def write_state(folder: Path, objects: TrainingObjects, point: SavePoint, identity: RunIdentity) -> None:
    """Fills an empty folder; give it a temporary one (`atomic_directory`), so that a torn state never has a state's name."""
    save_file(_tensors(objects.modules), folder / MODEL_FILE)
    torch.save(loadable(objects.optimizer.state_dict(), "optimizer"), folder / OPTIMIZER_FILE)
    torch.save(loadable(objects.scheduler.state_dict(), "scheduler"), folder / SCHEDULER_FILE)
    if objects.scaler is not None:
        torch.save(loadable(objects.scaler.state_dict(), "scaler"), folder / SCALER_FILE)
    if objects.average is not None:
        torch.save(loadable(objects.average.state_dict(), "average"), folder / AVERAGE_FILE)
    write_train_state(folder, point, identity, objects.best)


def load_state(found: FoundState, objects: TrainingObjects) -> list[str]:
    """All but the weights as it was; a learning rate that was changed since is kept. Returns what a person should know."""
    wanted = [group.get("initial_lr") for group in objects.optimizer.param_groups]
    _load_into(objects.optimizer, found.folder / OPTIMIZER_FILE)
    _load_into(objects.scheduler, found.folder / SCHEDULER_FILE)
    if objects.scaler is not None and (found.folder / SCALER_FILE).is_file():
        _load_into(objects.scaler, found.folder / SCALER_FILE)
    if objects.average is not None:
        _load_into(objects.average, found.folder / AVERAGE_FILE)
    return _change_rates(objects, wanted)


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors by `module.name`, contiguous on the CPU; safetensors refuses shared memory, so that is stored twice."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for module_name, module in modules.items():
        for name, tensor in module.state_dict().items():
            tensor = tensor.detach().cpu().contiguous()
            address = tensor.untyped_storage().data_ptr()
            tensors[f"{module_name}.{name}"] = tensor.clone() if address in seen else tensor
            seen.add(address)
    return tensors


def loadable(value: Any, where: str) -> Any:
    """The same value in types that `torch.load(weights_only=True)` accepts; TypeError for what has none."""
    if isinstance(value, Mapping):
        return {key: loadable(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(loadable(item, f"{where}[{index}]") for index, item in enumerate(value))
    if isinstance(value, Tensor) or type(value) in PLAIN:
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy number, though it may also be a float
        return value.item()
    raise TypeError(f"{where} holds a {type(value).__name__}, which a state file cannot hold")


def load_weights(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """The trained weights of a state; before they are shared out in parts, or an optimizer copies them."""
    stored = load_file(folder / MODEL_FILE)
    own = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    problems = [
        _named("not in the state", own.keys() - stored.keys()),
        _named("only in the state", stored.keys() - own.keys()),
        _named("of another shape", {name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape}),
    ]
    if any(problems):
        raise UserError(
            f"the state {folder} is of another network: {'; '.join(filter(None, problems))}. "
            "Use the model and network settings that it was saved with, or leave --resume out"
        )
    for name, module in modules.items():
        module.load_state_dict({key: stored[f"{name}.{key}"] for key in module.state_dict()})


def _named(problem: str, names: set[str]) -> str:
    if not names:
        return ""
    listed = sorted(names)[:NAMED_AT_MOST]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return f"{problem}: {', '.join(listed)}{more}"


def _load_into(target: Stateful, path: Path) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is no file of tensors and numbers and is not read: resume from another state folder") from error
    try:
        target.load_state_dict(content)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit this run's {type(target).__name__} ({error}): "
            "use the optimizer and scheduler settings of that run, or leave --resume out"
        ) from error


def _change_rates(objects: TrainingObjects, wanted: list[float | None]) -> list[str]:
    """Learning rates come back with the state; where the settings now say another, it takes effect.

    wanted: the rates that the schedule of each group starts from; None where the schedule has none or the optimizer sets its own.
    """
    notes = []
    base_rates = getattr(getattr(objects.scheduler, "scheduler", objects.scheduler), "base_lrs", None)
    for index, (group, new) in enumerate(zip(objects.optimizer.param_groups, wanted, strict=True)):
        old = group.get("initial_lr")
        if old is None or new is None or old == new:
            continue
        group["lr"] = group["lr"] * (new / old) if old else new
        group["initial_lr"] = new
        if base_rates is not None:
            base_rates[index] = new
        name = group.get("name", f"group {index}")
        notes.append(f"the learning rate of {name} was {old} in the state and is {new} from now on")
    return list(dict.fromkeys(notes))  # several groups may have one name
