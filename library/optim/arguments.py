"""`key=value` arguments for classes that are named in a config: read, and checked against the signature."""
from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any

from library.errors import UserError
from library.optim.names import likely_names

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def parse_arguments(texts: Iterable[str] | None, option: str) -> dict[str, Any]:
    """Reads `key=value` texts; values are Python literals."""
    arguments: dict[str, Any] = {}
    for text in texts or ():
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name or not value or "=" in value:
            raise UserError(f'{option} "{text}": write key=value, with exactly one "="')
        if name in arguments:
            raise UserError(f'{option} "{text}": {name} is given twice')
        try:
            arguments[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise UserError(f"{option} \"{text}\": {value} is not a value; text needs quotes, as in {name}='{value}'") from error
    return arguments


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], option: str, reserved: Mapping[str, str]) -> None:
    """Every argument must be a parameter of `target`, of a type that fits it.

    reserved: parameters that are not the user's to give here, each with what to write instead.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [name for name, parameter in parameters.items() if parameter.kind in _NAMED and name not in reserved]
    annotations = _annotations(target)
    mistakes = []
    for name, value in arguments.items():
        written = f'{option} "{name}={value!r}"'
        if name in reserved:
            mistakes.append(f"{written}: {reserved[name]}")
        elif name in known:
            expected = _expectation(parameters[name], annotations.get(name), value)
            if expected:
                mistakes.append(f"{written}: expected {expected}")
        elif not takes_any:
            mistakes.append(f"{written}: {target.__name__} has no argument {name}; {likely_names(name, known)}")
    if mistakes:
        raise UserError(*mistakes)


def missing_arguments(target: Callable[..., Any], given: Iterable[str]) -> list[str]:
    """Parameters of `target` without a default that are not among the given ones."""
    return [
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.default is Parameter.empty and parameter.kind in _NAMED and name not in given
    ]


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; none where a library's annotations cannot be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    except Exception:  # names that exist for type checkers only
        return {}


def _expectation(parameter: Parameter, annotation: Any, value: Any) -> str | None:
    """What would have fitted, if the value does not. The default tells the type; without one the annotation does."""
    default = parameter.default
    members = _union_members(annotation)
    if value is None and (default is None or type(None) in members or not members):
        return None
    if isinstance(default, bool) or (default is None and set(members) == {bool, type(None)}):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(default, str):
        return None if isinstance(value, str) else f"text in quotes, such as {default!r}"
    if isinstance(default, (tuple, list)):
        return _sequence_expectation(parameter.name, default, value)
    if int in members and float not in members:
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    if isinstance(default, (int, float)) or float in members:
        return None if isinstance(value, (int, float)) and not isinstance(value, bool) else "a number"
    return None


def _sequence_expectation(name: str, default: tuple[Any, ...] | list[Any], value: Any) -> str | None:
    numbers = all(isinstance(item, (int, float)) for item in default)
    fits = isinstance(value, (tuple, list)) and len(value) == len(default)
    if fits and not (numbers and any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in value)):
        return None
    return f"{len(default)} values, as in {name}={','.join(map(repr, default))}"


def _union_members(annotation: Any) -> tuple[Any, ...]:
    if annotation is None:
        return ()
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)
