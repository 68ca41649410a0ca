"""Finding the Python module that `--network_module` names, and calling it the way it wants to be called."""
from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from library.config.options import NetworkOptions
from library.config.spelling import did_you_mean
from library.errors import UserError
from library.families.weight_files import Shapes, read_shapes
from library.methods.lycoris import mend_presets

KNOWN_MODULES = ("networks.lora", "lycoris.kohya")
PACKAGE_TO_INSTALL = {"lycoris": "lycoris-lora"}  # where it is not called like the module


def network_arguments(options: NetworkOptions) -> dict[str, str | float | None]:
    """`--network_args` as keywords of the network module, values as written. New networks are also told the dropout."""
    arguments: dict[str, str | float | None] = {}
    for text in options.network_args or ():
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise UserError(f'network_args "{text}": must be key=value, for example conv_dim=4')
        if key in arguments:
            raise UserError(f"network_args {key}: is there twice; keep one")
        arguments[key] = value.strip()
    if not options.dim_from_weights:
        arguments.setdefault("dropout", options.network_dropout)
    return arguments


def import_network_module(name: str | None) -> ModuleType:
    """The module itself. UserError if it, or a package that it needs, is not there."""
    if not name:
        raise UserError('network_module is missing; write network_module = "networks.lora"')
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f'network_module = "{name}": must be the name of a Python module, such as networks.lora')
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'network_module = "{name}": {_why_missing(name, error)}') from error
    if name == "lycoris.kohya":
        mend_presets(module)
    return module


def _why_missing(name: str, error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    install = f"pip install {PACKAGE_TO_INSTALL.get(package, package)}"
    if not isinstance(error, ModuleNotFoundError) or not package:
        return f"cannot be imported ({error}); install or update what it needs"
    if not f"{name}.".startswith(f"{error.name}."):
        return f"needs the package {package}, which is not installed; {install}"
    if package == name.partition(".")[0] and package in PACKAGE_TO_INSTALL and error.name == package:
        return f"is not installed; {install}"
    return "there is no such module" + (did_you_mean(name, KNOWN_MODULES) or "; ours is networks.lora")


def check_network(options: NetworkOptions, family_name: str) -> None:
    """Everything about the network for a model of this family that can be checked without it, all mistakes at once."""
    mistakes: list[str] = []
    weights = _weight_files(options, mistakes)
    try:
        _check_module(options, weights, family_name)
    except UserError as error:
        mistakes += error.messages
    if mistakes:
        raise UserError(*mistakes)


def _weight_files(options: NetworkOptions, mistakes: list[str]) -> dict[tuple[str, str], Shapes]:
    """What the headers of the files of earlier networks say, by option and file."""
    base_weights, multipliers = options.base_weights or (), options.base_weights_multiplier or ()
    given = [("base_weights", file) for file in base_weights]
    given += [("network_weights", options.network_weights)] if options.network_weights else []
    shapes = {}
    for option, file in given:
        try:
            shapes[option, file] = read_shapes(Path(file))
        except UserError as error:
            mistakes += [f"{option}: {message}" for message in error.messages]
    if options.dim_from_weights and not options.network_weights:
        mistakes.append("dim_from_weights needs network_weights, the file to take the shapes from")
    if len(multipliers) > len(base_weights):
        mistakes.append(f"base_weights_multiplier holds {len(multipliers)} values for {len(base_weights)} files in base_weights")
    return shapes


def _check_module(options: NetworkOptions, weights: Mapping[tuple[str, str], Shapes], family_name: str) -> None:
    """`check_arguments` and `check_weights` are ours: modules written for other trainers need not have them."""
    module = import_network_module(options.network_module)
    if not callable(getattr(module, "create_network", None)):
        raise UserError(f'network_module = "{options.network_module}": has no function create_network; ours is networks.lora')
    arguments = network_arguments(options)
    if hasattr(module, "check_arguments"):
        given = (options.network_dim, options.network_alpha, options.network_dropout)
        module.check_arguments(family_name, *given, **arguments)
    if hasattr(module, "check_weights"):
        for (option, file), shapes in weights.items():
            gives_shapes = option == "base_weights" or options.dim_from_weights
            module.check_weights(file, shapes, gives_shapes, options.network_dim, **arguments)


def accepted_keywords(function: Callable[..., Any], **candidates: Any) -> dict[str, Any]:
    """Those of the keywords that the function takes."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return candidates
    return {key: value for key, value in candidates.items() if key in parameters}


def takes_positional(function: Callable[..., Any], count: int) -> bool:
    """Whether the function can be called with this many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True
