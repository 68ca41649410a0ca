"""The command line of a tool: a dataclass of declared options gives its flags, its checks and its help."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from library.config.declare import Option, option, options_of
from library.config.old_spellings import OLD_NAMES
from library.config.spelling import did_you_mean
from library.config.values import value_from_flag
from library.errors import UserError

USER_MISTAKE = 2
INTERRUPTED = 130
Options = TypeVar("Options")


def positional(help: str) -> Any:
    """A dataclass field that is given by its place on the command line, without a flag."""
    return option(dataclasses.MISSING, help)


def is_positional(declared: Option) -> bool:
    return declared.default is dataclasses.MISSING


def run_tool(options: type[Options], work: Callable[[Options], None], argv: Sequence[str] | None = None) -> NoReturn:
    """Do a tool's work and exit: 0 done, 2 the user's mistake, 130 interrupted."""
    code = 0
    try:
        work(read_tool_options(options, sys.argv[1:] if argv is None else argv))
    except UserError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        code = USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, the same command does the rest", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def read_tool_options(options: type[Options], argv: Sequence[str]) -> Options:
    """The options that a command line gives; UserError with all of its mistakes."""
    return options(**read_tool_flags(options, argv))


def read_tool_flags(options: type, argv: Sequence[str]) -> dict[str, Any]:
    """Only what the command line itself says, by name; UserError with all of its mistakes."""
    declared = {entry.name: entry for entry in options_of(options)}
    parsed, leftover = build_parser(options).parse_known_args(argv)
    mistakes = [_leftover_mistake(word, declared) for word in leftover]
    values = {}
    for name, written in vars(parsed).items():
        try:
            values[name] = written if written is True else _value(declared[name], written)
        except ValueError as error:
            mistakes.append(f"{name if is_positional(declared[name]) else f'--{name}'}: {error}")
    if mistakes:
        raise UserError(*mistakes)
    return values


def build_parser(options: type) -> argparse.ArgumentParser:
    """A parser for the declared options; flags that are not given leave no trace in its result."""
    parser = _Parser(description=inspect.getdoc(options), argument_default=argparse.SUPPRESS, allow_abbrev=False)
    for entry in options_of(options):
        _add(parser, entry)
    return parser


def _add(parser: argparse.ArgumentParser, entry: Option) -> None:
    help_text = entry.declared.help.replace("%", "%%")
    if is_positional(entry):
        parser.add_argument(entry.name, help=help_text)
    elif entry.default is False:
        parser.add_argument(entry.flag, action="store_true", help=help_text)
    else:
        metavar = "{" + ",".join(entry.declared.choices) + "}" if entry.declared.choices else entry.kind.name.upper()
        shown = "" if entry.default in (None, "", ()) else f" (default: {_shown(entry.default)})"
        nargs = "*" if entry.kind.many else None
        parser.add_argument(entry.flag, metavar=metavar, nargs=nargs, help=help_text + shown)
    for old, new in OLD_NAMES.items():
        if new == entry.name:
            parser.add_argument(f"--{old}", dest=new, help=argparse.SUPPRESS)


def _shown(default: Any) -> str:
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return repr(text) if text != text.strip() else text


def _value(entry: Option, written: str | Sequence[str]) -> Any:
    if is_positional(entry) and not written:
        raise ValueError("this is empty")
    return value_from_flag(entry, written)


def _leftover_mistake(word: str, declared: dict[str, Option]) -> str:
    if not word.startswith("-"):
        return f"{word!r}: unexpected; put names with spaces in quotes"
    name = word.lstrip("-").partition("=")[0]
    return f"{word}: unknown option{did_you_mean(name, declared)}; --help lists all"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}; --help lists all")
