"""Reads the text, TOML and JSON files that people write, with errors that say where and what to write instead."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from library.config.spelling import closest
from library.errors import UserError

# The standard library's reader, and its twin for Python 3.10. The `toml` package refuses valid TOML (lists of mixed types) and
# names line 1 for mistakes that are elsewhere.
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table_file(path: Path, what: str) -> dict[str, Any]:
    """The content of a .toml or .json file; `what` names it in errors, for example "dataset file"."""
    suffix = path.suffix.lower()
    if suffix == ".toml":
        return read_toml(path, what)
    if suffix == ".json":
        content = read_json(path, what)
        if not isinstance(content, dict):
            raise UserError(f"{path}: a {what} holds one object {{...}}, this is something else")
        return content
    raise UserError(f'{path}: a {what} ends in .toml or .json, this ends in "{path.suffix}"')


def read_text(path: Path, what: str) -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such {what}{similar_file(path)}") from None
    except OSError as error:
        problem = "this is a folder" if path.is_dir() else f"it cannot be read ({error.strerror})"
        raise UserError(f"{path}: expected a {what}, but {problem}") from None
    if content.startswith(_UTF16_MARKS) or b"\0" in content[:1000]:
        raise UserError(f"{path}: this {what} is stored as UTF-16 or is not text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: this {what} is not stored as UTF-8; save it as UTF-8") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    text = read_text(path, what)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{path}: tables or lists are nested too deeply") from None
    except ValueError as error:
        raise UserError(_toml_mistake(path, text, str(error))) from None


def read_json(path: Path, what: str) -> Any:
    text = read_text(path, what)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        hint = r' (write "C:/folder" or "C:\\folder" for a path)' if "escape" in error.msg else ""
        raise UserError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}{hint}") from None
    except RecursionError:
        raise UserError(f"{path}: objects or lists are nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        key = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f'"{key}" stands twice in the same object')
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def similar_file(path: Path) -> str:
    try:
        neighbours = [file.name for file in path.parent.iterdir() if file.is_file()]
    except OSError:
        return f" (nor a folder {path.parent})"
    guess = closest(path.name, neighbours)
    return f'; did you mean "{path.with_name(guess)}"?' if guess else ""


def _toml_mistake(path: Path, text: str, problem: str) -> str:
    """The reader's message with the line itself and, for frequent mistakes, the remedy."""
    lines = text.split("\n")
    place = re.search(r" \(at line (\d+), column \d+\)$", problem)
    number = int(place[1]) if place else _line_left_open(lines)
    problem = problem[: place.start()] if place else problem.replace("at end of document", "this line leaves something open")
    line = "".join(character if character.isprintable() else " " for character in lines[number - 1]).strip()
    return f"{path}, line {number}: not valid TOML: {_toml_remedy(problem, line)}: {line}"


def _line_left_open(lines: list[str]) -> int:
    """The line that begins what the end of the file interrupts: the lines before it are valid on their own."""
    for count in range(len(lines) - 1, 0, -1):
        try:
            tomllib.loads("\n".join(lines[:count]))
            return count + 1
        except ValueError:
            pass
    return 1


def _toml_remedy(problem: str, line: str) -> str:
    if "\\" in line and '"' in line:
        return r"""a backslash in double quotes; write 'C:\folder' in single quotes, or "C:\\folder" with two backslashes"""
    if problem == "Cannot overwrite a value":
        return "this key stands twice in its table"
    if problem.startswith("Cannot declare"):
        return "this table stands twice in the file"
    if problem == "Invalid value" and re.search(r"=\s*(True|False)\b", line):
        return "write true or false in small letters"
    if problem == "Invalid value" and re.search(r"=\s*[A-Za-z./~]", line):
        return 'text must stand in quotes, as in name = "text"'
    return problem
