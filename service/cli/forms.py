"""Commands whose arguments are the fields of a dataclass: declared once, handed over as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from library.errors import UserError
from service.cli.access import KEY_PREFIX

KEY_PLACE = 1  # of a key among the words of a command: the second

ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The service's address. [TADPOLE_URL, then what login stored]")
]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", metavar="KEY", help="Your API key. [TADPOLE_API_KEY, then what login stored]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataOption = Annotated[
    str | None, typer.Option("--data-dir", metavar="FOLDER", help="The service's data. [TADPOLE_DATA_DIR, then tadpole-data]")
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all commands take that ask a service."""

    api_key: KeyOption = None
    server: ServerOption = None
    json: JsonOption = False


Form = TypeVar("Form")


def add(app: typer.Typer, name: str, form: type[Form], run: Callable[[Form], int | None]) -> None:
    """The command `name`: its arguments are those of the form, its help is the docstring of `run`."""

    def command(**values: Any) -> int | None:
        try:
            return run(form(**values))
        except KeyboardInterrupt:  # which not every typer turns into the same
            raise typer.Abort from None

    hints = get_type_hints(form, include_extras=True)
    parameters = [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hints[entry.name],
            default=inspect.Parameter.empty if entry.default is MISSING else entry.default,
        )
        for entry in fields(form)  # type: ignore[arg-type]
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=inspect.getdoc(run))(command)


def words_and_key(words: Sequence[str], names: Sequence[str], key: str | None) -> tuple[list[str], str | None]:
    """The words of a command without the API key that may stand second, and that key (or the one of --api-key)."""
    values, usage = list(words), " ".join([names[0], "[API_KEY]", *names[1:]])
    if len(values) > KEY_PLACE and values[KEY_PLACE].startswith(KEY_PREFIX):
        written = values.pop(KEY_PLACE)
        if key not in (None, written):
            raise UserError("two different API keys: give it once, as the second word or as --api-key")
        key = written
    elif len(values) == len(names) + 1:
        raise UserError(f"the second word is no API key, which would begin with {KEY_PREFIX}: write {usage}")
    if len(values) < len(names):
        raise UserError(f"{names[len(values)]} is missing: write {usage}")
    if len(values) > len(names):
        raise UserError(f"{len(values)} words are too many (one of several words needs quotes): write {usage}")
    return values, key
