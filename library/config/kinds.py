"""The kinds of values that options have: how each is read from a flag's text and from a value in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

Numbers = NewType("Numbers", tuple[float, ...])  # written in one text, separated by commas


class WrongKind(ValueError):
    """A value of the wrong kind. `suggestion` is what to write in a file instead, where that can be guessed."""

    def __init__(self, suggestion: str | None = None):
        super().__init__(suggestion)
        self.suggestion = suggestion


@dataclass(frozen=True)
class Kind:
    """`read_text` reads what follows a flag, `read_value` what a TOML or JSON file holds; both raise WrongKind."""

    name: str  # in tables and docs
    expected: str  # completes "expected ..."
    read_text: Callable[[str], Any]
    read_value: Callable[[Any], Any]
    many: bool = False  # a flag of this kind takes any number of values; `read_text` reads one of them


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongKind(f'"{value}"' if isinstance(value, (int, float)) and not isinstance(value, bool) else None)
    if "\0" in value:  # no file name may hold it, and the operating system's complaint is hard to understand
        raise WrongKind
    return value


def _int_from_text(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise WrongKind from None


def _float_from_text(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise WrongKind from None
    if not math.isfinite(number):
        raise WrongKind
    return number


def _fraction_or_count_from_text(text: str) -> int | float:
    """`100` steps, or a part of all steps: `0.1` or `10%`."""
    if text.endswith("%"):
        part = _float_from_text(text[:-1]) / 100
        if part >= 1:
            raise WrongKind
        return part
    try:
        return int(text)
    except ValueError:
        number = _float_from_text(text)
    if number >= 1:
        raise WrongKind(f"{number:.0f}")
    return number


def _resolution_from_text(text: str) -> tuple[int, int]:
    sides = [_int_from_text(side) for side in text.split(",")]
    if len(sides) > 2:
        raise WrongKind
    return sides[0], sides[-1]


def _range_from_text(text: str) -> tuple[float, float]:
    ends = [_float_from_text(end) for end in text.split(",")]
    if len(ends) != 2:
        raise WrongKind
    return ends[0], ends[1]


def _numbers_from_text(text: str) -> tuple[float, ...]:
    return tuple(_float_from_text(number) for number in text.split(","))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _suggest_unquoted(value: Any, read: Callable[[str], Any]) -> WrongKind:
    """For text in a file where a number is due: the number, if the text holds one."""
    if isinstance(value, str):
        try:
            read(value)
            return WrongKind(value.strip())
        except WrongKind:
            pass
    return WrongKind()


def _bool_from_text(text: str) -> bool:
    if text not in ("true", "false"):
        raise WrongKind
    return text == "true"


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    lowered = str(value).lower()
    raise WrongKind({"1": "true", "0": "false"}.get(lowered, lowered if lowered in ("true", "false") else None))


def _int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        raise WrongKind(f"{value:.0f}")
    raise _suggest_unquoted(value, _int_from_text)


def _float(value: Any) -> float:
    if _is_number(value):
        return float(value)
    raise _suggest_unquoted(value, _float_from_text)


def _fraction_or_count(value: Any) -> int | float:
    if isinstance(value, str) and not value.endswith("%"):
        raise _suggest_unquoted(value, _fraction_or_count_from_text)
    if isinstance(value, str) or _is_number(value):
        return _fraction_or_count_from_text(str(value))
    raise WrongKind


def _resolution(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return _resolution_from_text(value)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:
        raise WrongKind
    return _int(sides[0]), _int(sides[1])


def _range(value: Any) -> tuple[float, float]:
    if isinstance(value, str):
        return _range_from_text(value)
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
        raise WrongKind
    return float(value[0]), float(value[1])


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise WrongKind(f'["{value}"]')
    if not isinstance(value, list):
        raise WrongKind
    return tuple(_text(item) for item in value)


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(_float(item) for item in (value if isinstance(value, list) else [value]))


def _numbers(value: Any) -> tuple[float, ...]:
    return _numbers_from_text(value) if isinstance(value, str) else _floats(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongKind
    return value


def _no_text(text: str) -> Any:
    raise WrongKind


# By annotation, without its `| None`; a union of several is a frozenset.
KINDS: dict[Any, Kind] = {
    str: Kind("str", "text", str, _text),
    bool: Kind("bool", "true or false", _bool_from_text, _bool),
    int: Kind("int", "a whole number", _int_from_text, _int),
    float: Kind("float", "a number", _float_from_text, _float),
    Path: Kind("Path", "the path of a file", Path, lambda value: Path(_text(value))),
    frozenset((int, float)): Kind(
        "int_or_float",
        'a whole number of steps, or a part of all steps as a number under 1 or as "10%"',
        _fraction_or_count_from_text,
        _fraction_or_count,
    ),
    tuple[str, ...]: Kind("str", "a list of texts", str, _texts, many=True),
    tuple[float, ...]: Kind("float", "a number or a list of numbers", _float_from_text, _floats, many=True),
    tuple[int, int]: Kind("str", 'a size such as 512 or "512,768" (width,height)', _resolution_from_text, _resolution),
    tuple[float, float]: Kind("str", 'two numbers such as "2.0,4.0"', _range_from_text, _range),
    Numbers: Kind("str", 'numbers separated by commas, such as "0.1,0,0.1"', _numbers_from_text, _numbers),
    dict[str, Any]: Kind("table", "a table", _no_text, _table),
}
