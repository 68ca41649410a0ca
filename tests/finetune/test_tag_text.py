"""From probabilities to tags: thresholds, spelling, replacements, order."""
from __future__ import annotations

import numpy as np
import pytest

from library.errors import UserError
from library.preparation.tag_text import (
    ORDER,
    Label,
    TagRules,
    comparable_tags,
    read_replacements,
    tag_chooser,
    without_underscores,
)

LABELS = [
    Label("safe", "rating"),
    Label("not_safe", "rating"),
    Label("best_quality", "quality"),
    Label("bad_quality", "quality"),
    Label("long_hair", "general"),
    Label("^_^", "general"),
    Label("1girl", "general"),
    Label("hero_(series)", "character"),
    Label("series", "copyright"),
    Label("somebody", "artist"),
    Label("highres", "meta"),
    Label("some_model", "model"),
]
SURE = np.array([0.2, 0.9, 0.3, 0.1, *[0.5] * 8], np.float32)
ALL = ["long_hair", "^_^", "1girl", "hero_(series)", "series", "somebody", "highres", "some_model"]


def tags(probabilities: np.ndarray = SURE, threshold: float = 0.35, thresholds: dict | None = None, **rules: object) -> list[str]:
    limits = {**dict.fromkeys(ORDER, threshold), **(thresholds or {})}
    return tag_chooser(LABELS, TagRules(thresholds=limits, **rules))(probabilities)  # type: ignore[arg-type]


def test_plain() -> None:
    assert tags() == ALL


@pytest.mark.parametrize("category", ORDER)
def test_each_category_has_its_threshold(category: str) -> None:
    of_category = {label.name for label in LABELS if label.category == category}
    assert tags(thresholds={category: 0.51}) == [tag for tag in ALL if tag not in of_category]
    assert tags(threshold=0.51, thresholds={category: 0.5}) == [tag for tag in ALL if tag in of_category]


def test_rating_and_quality_are_the_most_probable_ones() -> None:
    assert tags(first=("rating", "quality")) == ["not_safe", "best_quality", *ALL]
    assert tags(first=("quality",), last=("rating",)) == ["best_quality", *ALL, "not_safe"]
    assert tags(threshold=1, last=("rating",)) == ["not_safe"]


def test_characters_first() -> None:
    assert tags(character_tags_first=True)[:2] == ["hero_(series)", "long_hair"]
    assert sorted(tags(character_tags_first=True)) == sorted(ALL)


def test_underscores() -> None:
    assert tags(remove_underscore=True)[:4] == ["long hair", "^_^", "1girl", "hero (series)"]
    for face in ("^_^", "o_o", ">_<", "(o)_(o)", "|_|", "=_=", "0_0"):
        assert without_underscores(face) == face
    for tag, written in (("a_frog", "a frog"), ("k-on!_2", "k-on! 2"), ("x_(ab)", "x (ab)"), ("3d_x", "3d x")):
        assert without_underscores(tag) == written


def test_character_expands_and_repeats_are_dropped() -> None:
    assert tags(character_tag_expand=True)[3:5] == ["hero", "series"]
    assert tags(character_tag_expand=True).count("series") == 1


def test_undesired() -> None:
    rules = {"undesired": frozenset(comparable_tags("Long hair, 1girl, hero_(series), "))}
    assert tags(**rules) == tags(remove_underscore=False, **rules) == ["^_^", "series", "somebody", "highres", "some_model"]


def test_always_first_only_where_found() -> None:
    assert tags(always_first=comparable_tags("highres, 1girl, not there"))[:3] == ["highres", "1girl", "long_hair"]
    assert tags(always_first=comparable_tags("not_safe"), last=("rating",))[0] == "not_safe"


@pytest.mark.parametrize("written", ["long_hair", "long hair", "Long_Hair"])
@pytest.mark.parametrize("remove_underscore", [False, True])
def test_replacement_changes_this_tag_and_no_other(written: str, remove_underscore: bool) -> None:
    plain = tags(remove_underscore=remove_underscore)
    replaced = tags(remove_underscore=remove_underscore, replacements=read_replacements(f"{written},tresses; nothing,other"))
    assert replaced == ["tresses", *plain[1:]]


def test_replacement_reaches_every_kind_of_tag() -> None:
    pairs = ";".join(f"{label.name},new {label.name}" for label in LABELS)
    replaced = tags(replacements=read_replacements(pairs), first=("rating",), last=("quality",))
    assert replaced == [f"new {tag}" for tag in ["not_safe", *ALL, "best_quality"]]


def test_replaced_tags_can_be_undesired_or_first() -> None:
    replacements = read_replacements("highres,sharp;1girl,girl")
    assert tags(replacements=replacements, undesired=frozenset({"sharp"}), always_first=("girl",)) == [
        "girl", "long_hair", "^_^", "hero_(series)", "series", "somebody", "some_model",
    ]  # fmt: skip


def test_replacements_are_read() -> None:
    assert read_replacements(None) == read_replacements("") == read_replacements(" ; ") == {}
    assert read_replacements("A_b,c d ; e,f;") == {"a b": "c d", "e": "f"}
    assert read_replacements(r"a\,b,c\;d;e\;,f") == {"a,b": "c;d", "e;": "f"}
    for text in ("a", "a,b,c", "a,", ",b", "a;b"):
        with pytest.raises(UserError, match="--tag_replacement"):
            read_replacements(text)
