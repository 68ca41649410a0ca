"""Turns what a person wrote into an option's value, or says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from library.config.declare import Option
from library.config.kinds import KINDS, WrongKind
from library.config.spelling import did_you_mean


def value_from_flag(option: Option, written: str | Sequence[str]) -> Any:
    """The value of the text (of the texts, for a flag that takes many) that follows a flag; ValueError says what is wrong."""
    texts = [written] if isinstance(written, str) else written
    try:
        values = tuple(option.kind.read_text(text) for text in texts)
    except WrongKind as wrong:
        expected = "numbers" if option.kind.many else option.kind.expected
        instead = f"; write {option.flag} {wrong.suggestion}" if wrong.suggestion else ""
        raise ValueError(f"expected {expected}, found {' '.join(texts)!r}{instead}") from None
    return _checked(option, values if option.kind.many else values[0])


def value_from_file(option: Option, written: Any) -> Any:
    """The value of what a TOML or JSON file holds; ValueError says what is wrong."""
    try:
        value = option.kind.read_value(written)
    except WrongKind as wrong:
        instead = f"; write {option.name} = {wrong.suggestion}" if wrong.suggestion else ""
        raise ValueError(f"expected {option.kind.expected}, found {_described(written)}{instead}") from None
    return _checked(option, value)


def _checked(option: Option, value: Any) -> Any:
    declared = option.declared
    if value == "" and option.default is None and option.kind is KINDS[str]:
        return None  # an empty text is how scripts and forms leave an option out
    if declared.choices and value not in declared.choices:
        raise ValueError(_wrong_choice(option, value))
    for number in value if isinstance(value, tuple) else (value,):
        if declared.least is not None and number < declared.least:
            raise ValueError(f"{number} is too small: at least {declared.least}")
        if declared.most is not None and number > declared.most:
            raise ValueError(f"{number} is too large: at most {declared.most}")
    return value


def _wrong_choice(option: Option, value: Any) -> str:
    choices = [str(choice) for choice in option.declared.choices]
    shown = f'"{value}"' if isinstance(value, str) else value
    return f"{shown} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}"


def _described(written: Any) -> str:
    if isinstance(written, str):
        return f'the text "{written}"'
    if isinstance(written, dict):
        return "a table"
    if isinstance(written, (bool, list)) or written is None:
        return json.dumps(written, default=str)
    return str(written)
