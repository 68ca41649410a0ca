"""The command line: argparse flags made from the declared options."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import dataclass, field
from typing import Any, NoReturn

from library.config.declare import Option, options_of
from library.config.names import FILE_OPTIONS, explain_unknown
from library.config.old_spellings import OLD_NAMES, is_old_switch, modern
from library.config.options import TOPICS
from library.config.scripts import Script
from library.config.settings import OPTIONS, Source, options_for
from library.config.values import value_from_flag
from library.errors import UserError


@dataclass
class Flags:
    """What the command line says: option values by name, the two options about files, and all mistakes."""

    values: dict[str, Any] = field(default_factory=dict)
    config_file: str | None = None
    output_config: bool = False
    sources: dict[str, Source] = field(default_factory=dict)  # the flag that gave each value
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def read_flags(script: Script, argv: list[str]) -> Flags:
    """Reads the flags; `--help` prints and exits. Values are checked here, not by argparse, to tell all mistakes at once."""
    parsed, leftover = build_parser(script).parse_known_args(argv)
    given = vars(parsed)
    flags = Flags(**{name: given.pop(name) for name in FILE_OPTIONS if name in given})
    options = options_for(script.name)
    flags.mistakes += _leftover_mistakes(leftover, argv, script)
    for flag, given_text in given.items():
        name, written, new = modern(flag, given_text)
        if new is not None:
            flags.notes.append(f'--{flag}: an old spelling of "--{new.replace("=", " ")}"')
        if name in flags.sources:
            flags.mistakes.append(f"--{flag}: this option stands twice, also as {flags.sources[name].place}; write only one of them")
            continue
        flags.sources[name] = Source(f"--{flag}")
        try:
            flags.values[name] = written if written is True else value_from_flag(options[name], written)
        except ValueError as error:
            flags.mistakes.append(f"--{flag}: {error}")
    return flags


def build_parser(script: Script) -> argparse.ArgumentParser:
    """A parser that knows every option of the script; flags that are not given leave no trace in its result."""
    parser = _Parser(
        prog=script.name,
        usage="%(prog)s [--config_file FILE] [--dataset_config FILE] [--OPTION VALUE ...]",
        description="Values come from --config_file; flags override them.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--config_file", metavar="FILE", help="Read options from this .toml file; its tables are only for the reader."
    )
    files.add_argument(
        "--output_config", action="store_true", help="Write the given options to --config_file (a new file) and stop."
    )
    known = options_for(script.name)
    for topic, options in TOPICS.items():
        names = [option.name for option in options_of(options) if option.name in known]
        if names:
            group = parser.add_argument_group(topic, inspect.getdoc(options))
            for name in names:
                _add_flag(group, known[name])
    return parser


def _add_flag(group: argparse._ArgumentGroup, option: Option) -> None:
    help_text = describe(option).replace("%", "%%")
    old_names = [old for old, new in OLD_NAMES.items() if new == option.name]
    for old in filter(is_old_switch, old_names):
        group.add_argument(f"--{old}", action="store_true", help=argparse.SUPPRESS)
    old_flags = [f"--{old}" for old in old_names if not is_old_switch(old)]
    if option.default is False:
        group.add_argument(option.flag, action="store_true", help=help_text)
        for flag in old_flags:
            group.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
        return
    metavar = "{" + ",".join(map(str, option.declared.choices)) + "}" if option.declared.choices else _METAVARS[option.kind.name]
    nargs = "*" if option.kind.many else None
    group.add_argument(option.flag, nargs=nargs, metavar=metavar, help=help_text)
    for flag in old_flags:
        group.add_argument(flag, nargs=nargs, metavar=metavar, help=argparse.SUPPRESS)


_METAVARS = {"str": "TEXT", "int": "N", "float": "X", "int_or_float": "N|X", "Path": "FILE"}


def describe(option: Option) -> str:
    """The help text with the default, where there is one."""
    shown = "" if option.default in (None, False, "") else f" (default: {option.default})"
    return option.declared.help + shown


def _leftover_mistakes(leftover: list[str], argv: list[str], script: Script) -> list[str]:
    """Words that no flag has claimed: unknown flags, whose values are passed over, and stray values."""
    mistakes = []
    after_unknown_flag = False
    for word in leftover:
        if word.startswith("-"):
            name = word.lstrip("-").partition("=")[0]
            dashes = "" if word.startswith("--") else "; flags begin with two dashes"
            mistakes.append(f"{word.partition('=')[0]}: {explain_unknown(name, script)}{dashes}")
            after_unknown_flag = True
        elif not after_unknown_flag:
            before = argv[argv.index(word) - 1] if argv.index(word) else ""
            reason = f"{before} takes no value" if before in _switches() else "no flag before it takes another value"
            mistakes.append(f"{word!r}: unexpected, {reason}")
    return mistakes


def _switches() -> set[str]:
    return {option.flag for option in OPTIONS.values() if option.default is False} | {"--output_config"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "; write --flag=VALUE if the value begins with a dash" if "expected one argument" in message else ""
        raise UserError(f"command line: {message}{hint}")
