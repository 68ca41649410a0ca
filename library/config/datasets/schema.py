"""Checks the tables of a dataset file with voluptuous and words its findings for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import voluptuous

from library.config.datasets.keys import CAPTIONED, DATASET, DESCRIBED, GENERAL, KEYS, MASKED, RENAMED, SUBSET, DatasetKey
from library.config.kinds import KINDS
from library.config.old_spellings import OLD_NAMES
from library.config.settings import OPTIONS
from library.config.spelling import did_you_mean
from library.config.values import value_from_file

_EXTRA_KEY = "extra keys not allowed"  # voluptuous has no class for it
_ALL_OR_NONE = f"this key is missing: all subsets of a {DATASET} have it or none; move this one to a {DATASET} of its own"
_MISSING = {
    "image_dir": 'this key is missing; write image_dir = "folder of pictures"',
    "metadata_file": _ALL_OR_NONE,
    "conditioning_data_dir": _ALL_OR_NONE,
}


def _validator(key: DatasetKey) -> Callable[[Any], Any]:
    def validate(written: Any) -> Any:
        if key.name in ("resolution", "face_crop_aug_range") and isinstance(written, str):
            raise voluptuous.Invalid(
                f'expected numbers without quotes, found the text "{written}"; write {key.name} = [{written}]'
            )
        if written == "" and key.option.kind is KINDS[str] and not key.option.declared.choices:
            if key.required:
                raise voluptuous.Invalid("this is empty")
            return written  # overrides what the flag or the table above says
        try:
            return value_from_file(key.option, written)
        except ValueError as error:
            raise voluptuous.Invalid(str(error)) from None

    return validate


def _schema(level: str, kind: str) -> voluptuous.Schema:
    rules: dict[Any, Any] = {}
    for key in KEYS.values():
        if key.may_stand_in(level, kind):
            rules[voluptuous.Required(key.name) if kind in key.required else voluptuous.Optional(key.name)] = _validator(key)
    return voluptuous.Schema(rules)


_LEVELS, _KINDS = (GENERAL, DATASET, SUBSET), (CAPTIONED, DESCRIBED, MASKED)
_SCHEMAS = {(level, kind): _schema(level, kind) for level in _LEVELS for kind in _KINDS}


def check_table(table: Any, level: str, where: str, mistakes: list[str], kind: str = CAPTIONED) -> dict[str, Any]:
    """The values of one table, in a dataset with this kind of subsets.

    Whatever is wrong is added to `mistakes`; a default stands in, to look for further mistakes.
    """
    if not isinstance(table, dict):
        mistakes.append(f"{where}: expected a table, found something else")
        return {}
    try:
        return _SCHEMAS[level, kind](table)
    except voluptuous.MultipleInvalid as invalid:
        wrong = {str(error.path[0]): error for error in invalid.errors}
    mistakes += [f"{where} {_worded(name, error, level, kind)}" for name, error in wrong.items()]
    right = {name: _validator(KEYS[name])(value) for name, value in table.items() if name not in wrong}
    return right | {name: KEYS[name].option.default for name in wrong if name in KEYS and level in KEYS[name].levels}


def _worded(name: str, error: voluptuous.Invalid, level: str, kind: str) -> str:
    if isinstance(error, voluptuous.RequiredFieldInvalid):
        return f"{name}: {_MISSING[name]}"
    if error.error_message == _EXTRA_KEY:
        return f"{name}: {_why_not_here(name, level, kind)}"
    return f"{name}: {error.error_message}"


def _why_not_here(name: str, level: str, kind: str) -> str:
    if name in KEYS and level in KEYS[name].levels:
        return f"{kind} do not use this; remove it, or move the subset to a {DATASET} of its own kind"
    if name in KEYS:
        return f"this key belongs in {' or '.join(KEYS[name].levels)}, not in {level}"
    if name in RENAMED:
        return f'in a dataset file this key is called "{RENAMED[name]}"'
    if name in OPTIONS:
        return f"this is an option of the whole run; write it in the file given with --config_file, or as the flag --{name}"
    if name in OLD_NAMES:
        return f'in a dataset file this key is spelt "{OLD_NAMES[name]}"'
    if name in ("general", "datasets", "subsets"):
        return f"this table cannot stand in {level}; write [general], [[datasets]] and [[datasets.subsets]]"
    legal = [key.name for key in KEYS.values() if key.may_stand_in(level, kind)]
    return f"unknown key{did_you_mean(name, legal) or did_you_mean(name, KEYS)}"
