"""The inputs of a client as declared fields: what each may hold, and every mistake at once, each with its field's name."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from library.config.spelling import did_you_mean

REQUIRED = object()  # in the place of a default
_WRITTEN_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,20})?([eE][+-]?\d{1,3})?")  # YAML makes a text of 5e-4
_NOT_IN_TEXTS = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, separators of lines and paragraphs
_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one input, in one line."""

    field: str
    message: str


class BadInput(Exception):
    """The inputs of a client cannot be taken."""

    def __init__(self, problems: Iterable[FieldProblem]):
        self.problems = list(problems)
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in self.problems))


class Check(Protocol):
    """What a field may hold."""

    def read(self, value: object) -> Any:
        """The value as we use it; ValueError says what is wrong with it and what to write instead."""

    def schema(self) -> dict[str, Any]:
        """The same as JSON schema."""


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    least: int
    most: int
    multiple_of: int = 1

    def read(self, value: object) -> int:
        number = _number(value)
        if not isinstance(number, int) and not number.is_integer():
            raise ValueError(f"{_shown(value)} is not a whole number")
        number = int(number)
        if not self.least <= number <= self.most:
            raise ValueError(f"{_shown(value)} is not between {self.least} and {self.most}")
        if number % self.multiple_of:
            nearest = round(number / self.multiple_of) * self.multiple_of
            raise ValueError(f"{number} is not a multiple of {self.multiple_of}; write {max(nearest, self.least)}, for example")
        return number

    def schema(self) -> dict[str, Any]:
        multiple = {"multipleOf": self.multiple_of} if self.multiple_of > 1 else {}
        return {"type": "integer", "minimum": self.least, "maximum": self.most, **multiple}


@dataclass(frozen=True)
class Number:
    """A number; `above` and `below` are not allowed themselves."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def read(self, value: object) -> float:
        number = float(_number(value))
        for limit, is_broken, words in (
            (self.least, lambda limit: number < limit, "less than"),
            (self.most, lambda limit: number > limit, "more than"),
            (self.above, lambda limit: number <= limit, "not above"),
            (self.below, lambda limit: number >= limit, "not below"),
        ):
            if limit is not None and is_broken(limit):
                raise ValueError(f"{_shown(value)} is {words} {limit:g}")
        return number

    def schema(self) -> dict[str, Any]:
        names = {"minimum": self.least, "maximum": self.most, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        return {"type": "number", **{name: limit for name, limit in names.items() if limit is not None}}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{_shown(value)} is neither true nor false")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.names:
            raise ValueError(f"{_shown(value)} is none of {', '.join(self.names)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}


@dataclass(frozen=True)
class Text:
    """One line of text, spaces around it removed. What it says is never run, nor taken for an option or a path."""

    least: int = 1
    most: int = 1000  # characters
    has_lines: bool = False  # line breaks and tabs are allowed: for people, not for the trainer

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{_shown(value)} is not a text")
        text = value.strip()
        allowed = "\r\n\t" if self.has_lines else ""
        if any(unicodedata.category(letter) in _NOT_IN_TEXTS and letter not in allowed for letter in text):
            wanted = "write plain text" if self.has_lines else "write one line"
            raise ValueError(f"there is a {'' if self.has_lines else 'line break or another '}control character in it; {wanted}")
        if not self.least <= len(text) <= self.most:
            wanted = f"{self.least} to {self.most}" if self.least else f"at most {self.most}"
            raise ValueError(f"it has {len(text)} characters; write {wanted}")
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": self.least, "maxLength": self.most}


@dataclass(frozen=True)
class Name:
    """A name of a model: letters, digits and . _ - /, with no empty or dotted part, so that it is no path out of anywhere."""

    most: int = 128
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.PATTERN, value) or len(value) > self.most:
            raise ValueError(
                f"{_shown(value)} is no name; write 1 to {self.most} letters, digits, and . _ - / between them, such as my-frog"
            )
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.PATTERN}$", "maxLength": self.most}


@dataclass(frozen=True)
class Ignored:
    """Whatever it is, it concerns the service that the client was written for, and is not kept."""

    def read(self, value: object) -> None:
        return None

    def schema(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Field:
    """One input. `target`: the attribute of TrainingRequest; None: it is checked, and has no effect here."""

    name: str
    target: str | None
    check: Check
    default: Any = REQUIRED
    aliases: tuple[str, ...] = ()
    help: str = ""


@dataclass
class Inputs:
    """What was read: the value of every target, and the names that the client gave (as the client wrote them)."""

    values: dict[str, Any]
    given: set[str]
    problems: list[FieldProblem]


def read_fields(inputs: Mapping[str, object], fields: Iterable[Field]) -> Inputs:
    """Every field checked, defaults filled in; null counts as left out. Problems are collected, not raised."""
    fields = list(fields)
    found = Inputs({}, set(), [])
    for field in fields:
        written = [name for name in (field.name, *field.aliases) if inputs.get(name) is not None]
        found.given |= set(written)
        if len(written) > 1:
            found.problems.append(FieldProblem(written[1], f"this is the same as {written[0]}, which is given too; remove one of them"))
        value = _value(field, written, inputs, found.problems)
        if field.target is not None:
            found.values[field.target] = value
    known = [name for field in fields for name in (field.name, *field.aliases)]
    for name in inputs:
        if name not in known:
            found.problems.append(FieldProblem(str(name)[:_SHOWN], f"there is no such input{did_you_mean(str(name)[:_SHOWN], known)}"))
    return found


def schema_of(fields: Iterable[Field]) -> dict[str, Any]:
    """JSON schema of an object with these fields, in their order."""
    fields = list(fields)
    properties = {}
    for order, field in enumerate(fields):
        default = {} if field.default is REQUIRED or field.default is None else {"default": field.default}
        described = {"description": field.help} if field.help else {}
        properties[field.name] = {**field.check.schema(), **default, **described, "x-order": order}
    required = [field.name for field in fields if field.default is REQUIRED]
    return {"type": "object", "title": "Input", "properties": properties, "required": required, "additionalProperties": False}


def _value(field: Field, written: list[str], inputs: Mapping[str, object], problems: list[FieldProblem]) -> Any:
    if not written:
        if field.default is REQUIRED:
            problems.append(FieldProblem(field.name, "this is needed and missing"))
            return None
        return field.default
    try:
        return field.check.read(inputs[written[0]])
    except ValueError as error:
        problems.append(FieldProblem(written[0], str(error)))
        return None


def _number(value: object) -> int | float:
    if isinstance(value, str) and _WRITTEN_NUMBER.fullmatch(value.strip()):
        text = value.strip()
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)} is not a number")
    if isinstance(value, int) and abs(value) >= 2**63 or isinstance(value, float) and not math.isfinite(value):
        raise ValueError("this number is too large")
    return value


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "this number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
