"""Cleaning captions and tags by rules."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.errors import UserError
from library.preparation.clean_rules import read_rules
from library.preparation.cleaning import clean_caption, clean_tags
from tests.finetune.tool_runs import run

SHIPPED = Path(__file__).parents[2] / "finetune" / "clean_rules.toml"
RULES = read_rules(SHIPPED)


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("a frog on a leaf", "a frog on a leaf"),
        ("arafed image of a frog , with a hat .", "image of a frog, with a hat"),
        ("there is a woman that is standing in the rain", "a woman standing in the rain"),
        ("There are two frogs.", "two frogs"),
        ("a close up picture of a frog", "a frog"),
        ("a picture of a picture of a frog", "a frog"),
        ("a dog and a dog and a dog and a cat", "a dog and a cat"),
        ("red red red", "red"),
        ("an anime girl and a cartoon style frog", "a girl and a cartoon style frog"),
        ("two anime style girls", "two girls"),
        ("  one\n\n there is two  ", "one\ntwo"),
        ("", ""),
    ],
)
def test_shipped_rules_for_captions(caption: str, cleaned: str) -> None:
    assert clean_caption(caption, RULES) == cleaned


@pytest.mark.parametrize(
    ("tags", "cleaned"),
    [
        ("long_hair , 1girl,1girl, ", "long hair, 1girl"),
        ("rating:safe, general, ^_^, o_o, highres, absurdres", "^_^, o_o"),
        ("very_long_hair, long_hair, absurdly_long_hair", "absurdly long hair"),
        ("multiple_girls, 2girls, solo", "2girls, solo"),
        ("partially_commentary, translation_request, hat", "hat"),
        ("a\nb", "a, b"),
    ],
)
def test_shipped_rules_for_tags(tags: str, cleaned: str) -> None:
    assert clean_tags(tags, RULES) == cleaned


WORDS = st.sampled_from(
    ["a", "an", "there", "is", "are", "picture", "of", "arafed", "frog", "standing", "that", "anime", "girl", ",", ".", "\n"]
)


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_caption(text, RULES)
    assert clean_caption(once, RULES) == once
    tags = clean_tags(text, RULES)
    assert clean_tags(tags, RULES) == tags


def test_rules_that_undo_each_other_come_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[captions]\nreplace = [['a', 'bb'], ['b', 'a']]", encoding="utf-8")
    assert set(clean_caption("a", read_rules(path))) == {"a"}


def test_metadata_is_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {"a": {"caption": "there is a frog", "tags": "a_frog, frog", "image_size": [1, 2]}, "b": {}}
    (tmp_path / "in.json").write_text(json.dumps(before), encoding="utf-8")
    (tmp_path / "out.json").write_text('{"a": {"train_resolution": [64, 64]}, "c": {"tags": "left_alone"}}', encoding="utf-8")
    run("clean_captions_and_tags.py", tmp_path / "in.json", tmp_path / "out.json", "--debug")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {
        "a": {"train_resolution": [64, 64], "caption": "a frog", "tags": "a frog, frog", "image_size": [1, 2]},
        "c": {"tags": "left_alone"},
        "b": {},
    }
    assert (tmp_path / "out.json.bak").exists()
    assert "a caption: 'there is a frog' -> 'a frog'" in capsys.readouterr().out


def test_rules_beside_the_metadata_go_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.json").write_text('{"a": {"tags": "x, y"}}', encoding="utf-8")
    (tmp_path / "clean_rules.toml").write_text("[tags]\nreplace = [['(x)', '\\1\\1']]", encoding="utf-8")
    run("clean_captions_and_tags.py", tmp_path / "in.json", tmp_path / "in.json")
    assert json.loads((tmp_path / "in.json").read_text(encoding="utf-8")) == {"a": {"tags": "xx, y"}}
    assert str(tmp_path / "clean_rules.toml") in capsys.readouterr().out


def test_all_mistakes_in_rules_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[captions]\nreplace = [['(', ''], ['a'], ['b', '\\1']]\nremov = []\n"
        "[tags]\nremove = 'x'\nunderscores_to_spaces = 1\n[tag]\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as raised:
        read_rules(path)
    said = raised.value.messages
    assert len(said) == 7
    for part in ("'(' is no regular expression", "expected ['pattern', 'replacement'], found ['a']", "'\\1' does not fit 'b'"):
        assert sum(f"{path} [captions] replace: " in message and part in message for message in said) == 1
    assert any(f"{path} [captions] remov: unknown key" in message for message in said)
    assert f'{path} [tag]: unknown table; did you mean "tags"?' in said
