"""The syntax of weighted captions, and random captions."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.families.caption_weights import weighted_fragments


@pytest.mark.parametrize(
    ("caption", "fragments"),
    [
        ("", []),
        ("a frog", [("a frog", 1)]),
        ("a (green) frog", [("a ", 1), ("green", 1.1), (" frog", 1)]),
        ("(green:1.3)", [("green", 1.3)]),
        ("(green : 1.3 )", [("green ", 1.3)]),
        ("(green:.5)", [("green", 0.5)]),
        ("(green:-1)", [("green", -1)]),
        ("[green]", [("green", 1 / 1.1)]),
        ("((green))", [("green", 1.21)]),
        ("((a:2) b:3)", [("a", 6), (" b", 3)]),
        ("([a] b)", [("a", 1), (" b", 1.1)]),
        (r"a \(film\)", [("a (film)", 1)]),
        (r"a \\ b", [("a \\ b", 1)]),
        (r"\[x\]", [("[x]", 1)]),
        ("(green", [("green", 1.1)]),
        ("((green", [("green", 1.21)]),
        ("[green", [("green", 1 / 1.1)]),
        ("green)", [("green)", 1)]),
        ("green] x", [("green] x", 1)]),
        ("green:1.3)", [("green:1.3)", 1)]),
        ("[green:1.3]", [("green:1.3", 1 / 1.1)]),
        ("(a:b:2)", [("a:b", 2)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("a BREAK b", [("a BREAK b", 1)]),
        ("()", []),
        ("(漢字:2) 😀", [("漢字", 2), (" 😀", 1)]),
    ],
)
def test_fragments(caption, fragments):
    found = weighted_fragments(caption)
    assert [text for text, _ in found] == [text for text, _ in fragments]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in fragments])


@given(st.text(alphabet="ab ()[]:\\1.5", max_size=40))
def test_any_caption_is_read(caption):
    found = weighted_fragments(caption)
    assert all(text for text, _ in found)
    assert sum(len(text) for text, _ in found) <= len(caption)
    if not set("()[]\\") & set(caption):
        assert found == ([(caption, 1.0)] if caption else [])
