"""`option()`: declares an option once, as a dataclass field; flags, file checks, help and docs are read from it."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from library.config.kinds import KINDS, Kind

_METADATA_KEY = "tadpole option"


@dataclass(frozen=True)
class Declaration:
    """What `option()` was told; name, type and default stand in the dataclass field itself."""

    help: str
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    secret: bool = False  # never written to a file
    private: bool = False  # names a place on this machine: not told to a tracker
    scripts: tuple[str, ...] | None = None  # that take it; None: those of its topic
    # Where scripts differ: for these scripts, another "default" or other "choices".
    variants: Mapping[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """One option as the rest of this package sees it: a field of a topic dataclass with its declaration."""

    name: str
    kind: Kind
    default: Any
    declared: Declaration
    scripts: tuple[str, ...] | None = None  # that take it; None: all

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def is_of(self, script: str) -> bool:
        """Whether the script of this name takes it."""
        return self.scripts is None or script in self.scripts

    def as_in(self, script: str) -> Option:
        """The option with the default and the choices that it has in the script of this name."""
        changes = {key: value for names, variant in self.declared.variants.items() if script in names for key, value in variant.items()}
        default = changes.pop("default", self.default)
        return dataclasses.replace(self, default=default, declared=dataclasses.replace(self.declared, **changes))


def option(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field that is an option. `limits` are the other fields of `Declaration`."""
    return dataclasses.field(default=default, metadata={_METADATA_KEY: Declaration(help, **limits)})


@functools.cache
def options_of(topic: type) -> tuple[Option, ...]:
    """The options that a topic dataclass declares, in the order of its lines. `SCRIPTS` of the class: which scripts take them."""
    annotations = typing.get_type_hints(topic)
    options = []
    for entry in dataclasses.fields(topic):
        declared = entry.metadata[_METADATA_KEY]
        scripts = declared.scripts or getattr(topic, "SCRIPTS", None)
        options.append(Option(entry.name, kind_of(annotations[entry.name]), entry.default, declared, scripts))
    return tuple(options)


def kind_of(annotation: Any) -> Kind:
    """The kind of value that an annotation asks for; `X | None` is an X that may be left out."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        members = tuple(member for member in typing.get_args(annotation) if member is not type(None))
        annotation = members[0] if len(members) == 1 else frozenset(members)
    return KINDS[annotation]
