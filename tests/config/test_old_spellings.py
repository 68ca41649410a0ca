"""Every old spelling, as a flag and as a key of a file, gives the settings of today's spelling, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from library.config.dump import options_markdown
from library.config.old_spellings import OLD_NAMES, OLD_SPELLINGS, is_old_switch
from library.config.settings import OPTIONS, Settings

Load = Callable[..., Settings]
Write = Callable[[str, str], Path]
Mistakes = Callable[..., list[str]]

EXAMPLES = {"str": ".txt", "bool": "true"}


def example(name: str) -> str:
    """What is written after an option's flag."""
    kind = OPTIONS[name].kind
    return "T_max=10" if kind.many else EXAMPLES[kind.name]


def spelt(spelling: str) -> tuple[str, str]:
    """An option of today and its value, by today's side of the table."""
    name, _, value = spelling.partition("=")
    return name, value or example(name)


def as_flags(name: str, value: str) -> list[str]:
    return [f"--{name}"] if value == "true" else [f"--{name}", value]


def as_key(name: str, value: str, many: bool) -> str:
    return f"{name} = true\n" if value == "true" else f'{name} = ["{value}"]\n' if many else f'{name} = "{value}"\n'


@pytest.mark.parametrize(("old", "new"), OLD_SPELLINGS.items())
def test_means_what_todays_spelling_means(load: Load, write: Write, old: str, new: str) -> None:
    name, value = spelt(new)
    old_name, _, old_value = old.partition("=")
    old_value = old_value or ("true" if is_old_switch(old_name) else value)
    expected = load(*as_flags(name, value))
    path = write("old.toml", as_key(old_name, old_value, OPTIONS[name].kind.many))
    flagged, filed = load(*as_flags(old_name, old_value)), load("--config_file", path)
    assert expected.changed(name)
    assert flagged.value(name) == filed.value(name) == expected.value(name)
    assert flagged.notes == (f'--{old_name}: an old spelling of "--{new.replace("=", " ")}"',)
    assert filed.notes == (f'{path} {old_name}: an old spelling of "{new.replace("=", " = ")}"',)
    assert expected.notes == ()


def test_a_switch_that_is_off_stands_for_nothing(load: Load, write: Write, mistakes: Mistakes) -> None:
    path = write("off.toml", 'use_8bit_adam = false\noptimizer_type = "Lion"\n')
    assert load("--config_file", path).optimizer.optimizer_type == "Lion"
    wrong = write("wrong.toml", 'use_8bit_adam = "yes"\n')
    (message,) = mistakes(load, "--config_file", wrong)
    assert message == f"{wrong} use_8bit_adam: expected true or false, found 'yes'; write optimizer_type = \"AdamW8bit\""


def test_two_spellings_of_one_option(load: Load, mistakes: Mistakes) -> None:
    (message,) = mistakes(load, "--use_8bit_adam", "--optimizer_type", "Lion")
    assert message == "--optimizer_type: this option stands twice, also as --use_8bit_adam; write only one of them"


def test_a_flag_overrides_an_old_spelling_in_a_file(load: Load, write: Write) -> None:
    path = write("run.toml", "use_8bit_adam = true\n")
    assert load("--config_file", path, "--optimizer_type", "Lion").optimizer.optimizer_type == "Lion"


def test_old_names_are_no_options_of_today_and_stand_in_the_docs() -> None:
    page = options_markdown()
    assert not OLD_NAMES.keys() & OPTIONS.keys()
    assert all(f"| `{old}` | `{new}` |" in page for old, new in OLD_SPELLINGS.items())
