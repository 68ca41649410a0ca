"""The declared options against the facts of the interface (train_network_flags.json), and their help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.config.flags import build_parser
from library.config.names import FILE_OPTIONS, NOT_BUILT
from library.config.options import OLD_NAMES, TOPICS
from library.config.settings import OPTIONS, Settings

FACTS = json.loads(Path(__file__).with_name("train_network_flags.json").read_text(encoding="utf-8"))
NEW = {"dry_run", "on_bad_image"}


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - NEW))
def test_option_is_declared_as_the_interface_has_it(name: str) -> None:
    option, fact = OPTIONS[name], FACTS[name]
    assert option.kind.name == fact["type"]
    assert option.default == fact["default"]
    assert list(option.declared.choices) == [choice for choice in fact["choices"] or [] if choice is not None]
    assert option.kind.many == (fact["nargs"] == "*")
    assert (option.default is False) == (fact["action"] == "store_true")


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_flag_does_what_the_interface_says(name: str) -> None:
    flag = build_parser("train_network.py")._option_string_actions[f"--{name}"]
    fact = FACTS.get(name, {"nargs": None, "action": "store"})
    if name == "dry_run":
        fact = {"nargs": None, "action": "store_true"}
    assert flag.nargs == (0 if fact["action"] == "store_true" else fact["nargs"])


def test_every_name_of_the_interface_is_declared_or_known() -> None:
    assert FACTS.keys() == (OPTIONS.keys() - NEW) | NOT_BUILT | OLD_NAMES.keys() | set(FILE_OPTIONS)
    assert not NOT_BUILT & OPTIONS.keys()


def test_names_are_declared_once() -> None:
    names = [name for topic in TOPICS.values() for name in topic.__dataclass_fields__]
    assert len(names) == len(set(names)) == len(OPTIONS)
    assert TOPICS.keys() == Settings.__dataclass_fields__.keys() - {"config_path", "sources", "notes"}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_help_is_a_sentence(name: str) -> None:
    text = OPTIONS[name].declared.help
    assert len(text) > 15
    assert "\n" not in text
    assert text.endswith(".")


def test_help_is_grouped_by_topic(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser("train_network.py").parse_args(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    headings = [line[:-1] for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[-len(TOPICS) :] == list(TOPICS)
    assert shown.index("\nnetwork:") < shown.index("\n  --network_dim N") < shown.index("\ndata:")
    assert "10%)" in shown
    assert "caption_extention" not in shown
