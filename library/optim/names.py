"""Short names of optimizers, and how a class is found by name."""
from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, field
from typing import Any

from library.errors import UserError


@dataclass(frozen=True)
class ShortName:
    """What a short name stands for."""

    name: str
    path: str  # dotted path of the class
    arguments: dict[str, Any] = field(default_factory=dict)  # added unless the user gives them


_NESTEROV = {"nesterov": True, "momentum": 0.9}

SHORT_NAMES = {
    short.name.lower(): short
    for short in (
        ShortName("AdamW", "torch.optim.AdamW"),
        ShortName("AdamW8bit", "bitsandbytes.optim.AdamW8bit"),
        ShortName("PagedAdamW", "bitsandbytes.optim.PagedAdamW"),
        ShortName("PagedAdamW8bit", "bitsandbytes.optim.PagedAdamW8bit"),
        ShortName("PagedAdamW32bit", "bitsandbytes.optim.PagedAdamW32bit"),
        ShortName("Lion", "lion_pytorch.Lion"),
        ShortName("Lion8bit", "bitsandbytes.optim.Lion8bit"),
        ShortName("PagedLion8bit", "bitsandbytes.optim.PagedLion8bit"),
        ShortName("SGDNesterov", "torch.optim.SGD", _NESTEROV),
        ShortName("SGDNesterov8bit", "bitsandbytes.optim.SGD8bit", _NESTEROV),
        ShortName("DAdaptation", "dadaptation.experimental.DAdaptAdamPreprint"),
        ShortName("DAdaptAdamPreprint", "dadaptation.experimental.DAdaptAdamPreprint"),
        ShortName("DAdaptAdaGrad", "dadaptation.DAdaptAdaGrad"),
        ShortName("DAdaptAdam", "dadaptation.DAdaptAdam"),
        ShortName("DAdaptAdan", "dadaptation.DAdaptAdan"),
        ShortName("DAdaptAdanIP", "dadaptation.experimental.DAdaptAdanIP"),
        ShortName("DAdaptLion", "dadaptation.DAdaptLion"),
        ShortName("DAdaptSGD", "dadaptation.DAdaptSGD"),
        ShortName("Prodigy", "prodigyopt.Prodigy"),
        ShortName("AdaFactor", "transformers.optimization.Adafactor"),
        ShortName("RAdamScheduleFree", "schedulefree.RAdamScheduleFree"),
        ShortName("AdamWScheduleFree", "schedulefree.AdamWScheduleFree"),
        ShortName("SGDScheduleFree", "schedulefree.SGDScheduleFree"),
    )
}


def find_by_path(path: str, option: str, default_module: str, other_names: tuple[str, ...] = ()) -> Any:
    """What the dotted `path` names; a path without a dot names an attribute of `default_module`.

    `option` and `other_names` (what the option takes besides) are for messages.
    """
    module_name, _, name = path.rpartition(".")
    module = _import(module_name or default_module, f'{option} = "{path}"')
    if not hasattr(module, name):
        candidates = [*other_names, *(n for n in dir(module) if not n.startswith("_"))]
        raise UserError(f'{option} = "{path}": {module.__name__} has no {name}; {likely_names(name, candidates)}')
    return getattr(module, name)


def likely_names(name: str, candidates: list[str]) -> str:
    """The end of a message about an unknown name: the one that was probably meant, or all."""
    if not candidates:
        return "there are none"
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.7)
    if close:
        return f"did you mean {by_lower_case[close[0]]}?"
    return "known: " + ", ".join(candidates) if len(candidates) <= 30 else "write package.module.Class for any class"


def _import(module_name: str, setting: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        package = missing.partition(".")[0]
        if package != missing:
            raise UserError(f"{setting}: there is no module {missing}") from error
        install = package.replace("_", "-")
        raise UserError(f"{setting} needs the package {package}, which is not installed: pip install {install}") from error
    except Exception as error:  # a package may fail on import in its own ways, for example without a GPU driver
        raise UserError(f"{setting}: importing {module_name} failed: {error}") from error
