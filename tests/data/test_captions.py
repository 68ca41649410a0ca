"""Captions: a table of examples worked out by hand."""
from __future__ import annotations

import random

import pytest

from library.config.datasets import CaptionSettings
from library.data.captions import process_caption


class Scripted(random.Random):
    """Reverses what it shuffles, chooses the last, and draws the given numbers in turn (then 0.999)."""

    def __init__(self, *draws: float):
        super().__init__(0)
        self.draws = list(draws)

    def random(self) -> float:
        return self.draws.pop(0) if self.draws else 0.999

    def shuffle(self, x) -> None:
        x.reverse()

    def choice(self, seq):
        return seq[-1]


SHUFFLE = {"shuffle_caption": True}
WILD = {"enable_wildcard": True}
KEEP = {"keep_tokens_separator": "|||"}
WARM = {"token_warmup_step": 10}
SEMICOLON = {"caption_separator": ";"}
GROUP = {"secondary_separator": ";;;"}
DROP = {"caption_tag_dropout_rate": 0.5}

# (stored caption, settings, expected, draws); epoch 1, step 1 of 100. Shuffling reverses, choices take the last.
PLAIN = [
    ("a, b, c", {}, "a, b, c", ()),
    ("", {}, "", ()),
    ("a,b ,c", {}, "a,b ,c", ()),  # nothing asked: nothing tidied
    ("a\nb", {}, "a", ()),
    ("{a|b}", {}, "{a|b}", ()),
    ("{{a}}", {}, "{{a}}", ()),
    # prefix, suffix
    ("a", {"caption_prefix": "p"}, "p a", ()),
    ("a", {"caption_suffix": "s"}, "a s", ()),
    ("a", {"caption_prefix": "p,", "caption_suffix": ", s"}, "p, a , s", ()),
    ("", {"caption_prefix": "p", "caption_suffix": "s"}, "p s", ()),
    ("a", {"caption_prefix": "", "caption_suffix": ""}, "a", ()),
    ("a\nb", {"caption_prefix": "p", "caption_suffix": "s"}, "p a s", ()),
    ("a\nb", {"caption_prefix": "p", "caption_suffix": "s", **WILD}, "p b s", ()),
    ("a\nb\nc", {"caption_prefix": "p", "caption_suffix": "s", **WILD}, "p c s", ()),
    ("a", {"caption_prefix": "{x|y}", **WILD}, "y a", ()),
    ("a, b", {"caption_prefix": "p,", **SHUFFLE, "keep_tokens": 1}, "p, b, a", ()),
    ("a, b", {"caption_prefix": "p |||", **SHUFFLE, **KEEP}, "p, b, a", ()),
    ("a, b", {"caption_suffix": "||| s", **SHUFFLE, **KEEP}, "a, b, s", ()),
    ("b, c", {"caption_prefix": "a |||", "caption_suffix": "||| s", **SHUFFLE, **KEEP}, "a, c, b, s", ()),
    # dropout of the whole caption
    ("a", {"caption_dropout_rate": 0.1}, "", (0.05,)),
    ("a", {"caption_dropout_rate": 0.1}, "a", (0.1,)),
    ("a", {"caption_dropout_rate": 1.0}, "", (0.999,)),
    ("a", {"caption_dropout_rate": 0.0}, "a", (0.0,)),
    ("a", {"caption_prefix": "p", "caption_dropout_rate": 0.1}, "", (0.05,)),
    ("a", {"caption_dropout_every_n_epochs": 1}, "", ()),
    ("a", {"caption_dropout_every_n_epochs": 2}, "a", ()),
    # wildcards
    ("a {b|c} d", WILD, "a c d", ()),
    ("{a|b} {c|d|e}", WILD, "b e", ()),
    ("{a}", WILD, "a", ()),
    ("{}", WILD, "{}", ()),
    ("{{a|b}}", WILD, "{a|b}", ()),
    ("{{{a|b}}}", WILD, "{b}", ()),  # doubled braces are read from the left: {{ {a|b}} } chooses between a and b}
    ("{a|{b|c}}", WILD, "{a|{b|c}", ()),
    ("{a|{b|c} d", WILD, "c d", ()),  # from the first { to the first }
    ("{a|}", WILD, "", ()),
    ("a {b | c } d", WILD, "a  c  d", ()),  # spaces are part of a choice
    ("a\n{b|c}", WILD, "c", ()),
    ("{a, b|c, d}", {**WILD, **SHUFFLE}, "d, c", ()),
    # shuffling and keeping
    ("a, b, c", SHUFFLE, "c, b, a", ()),
    ("a,b ,  c", SHUFFLE, "c, b, a", ()),
    ("a,,b", SHUFFLE, "b, , a", ()),
    ("a", SHUFFLE, "a", ()),
    ("", SHUFFLE, "", ()),
    ("a, b, c", {**SHUFFLE, "keep_tokens": 1}, "a, c, b", ()),
    ("a, b, c", {**SHUFFLE, "keep_tokens": 5}, "a, b, c", ()),
    ("a, b, c", {"keep_tokens": 1}, "a, b, c", ()),
    ("a; b; c", {**SHUFFLE, **SEMICOLON}, "c; b; a", ()),
    ("a, b; c", {**SHUFFLE, **SEMICOLON}, "c; a, b", ()),
    ("a b c", {**SHUFFLE, "caption_separator": " "}, "c b a", ()),
    ("a, b", {**SHUFFLE, "caption_separator": ", "}, "b, a", ()),
    ("a, b", {**SHUFFLE, "caption_separator": ""}, "a, b", ()),
    ("a ||| b, c", {**SHUFFLE, **KEEP}, "a, c, b", ()),
    ("a ||| b, c ||| d", {**SHUFFLE, **KEEP}, "a, c, b, d", ()),
    ("a, x ||| b, c ||| d, e", {**SHUFFLE, **KEEP}, "a, x, c, b, d, e", ()),
    ("a ||| b, c ||| d ||| e", {**SHUFFLE, **KEEP}, "a, c, b, d, e", ()),
    ("a, ||| b,, c", {**SHUFFLE, **KEEP}, "a, c, b", ()),
    ("||| b, c", {**SHUFFLE, **KEEP}, "c, b", ()),
    ("a ||| b, c", {**SHUFFLE, **KEEP, "keep_tokens": 2}, "a, c, b", ()),
    ("a, b, c", {**SHUFFLE, **KEEP, "keep_tokens": 1}, "a, c, b", ()),
    ("a ||| b, c", {**KEEP}, "a, b, c", ()),
    ("a ||| b, c ||| d", {**KEEP}, "a, b, c, d", ()),
    ("a; x ||| b", {**KEEP, **SEMICOLON}, "a; x; b", ()),
    ("a ||| b, c\nd", {**KEEP}, "a, b, c", ()),
    # groups
    ("a;;;b, c", GROUP, "a,b, c", ()),
    ("a;;;b, c, d", {**GROUP, **SHUFFLE}, "d, c, a,b", ()),
    ("a;;;b; c", {"secondary_separator": "+", "caption_separator": ";"}, "a;;;b; c", ()),
    ("a+b; c", {"secondary_separator": "+", **SEMICOLON, **SHUFFLE}, "c; a;b", ()),
    ("a;;;b, c", {**GROUP, **SHUFFLE, "keep_tokens": 1}, "a,b, c", ()),
    # dropout of tags
    ("a, b, c", DROP, "b", (0.4, 0.5, 0.4)),
    ("a, b, c", {**DROP, "keep_tokens": 1}, "a, c", (0.4, 0.5)),
    ("a, b, c", {**DROP, **SHUFFLE}, "c", (0.5, 0.4, 0.4)),
    ("a ||| b, c ||| d", {**DROP, **KEEP}, "a, c, d", (0.4, 0.5)),
    ("a;;;b, c", {**DROP, **GROUP}, "c", (0.4, 0.5)),
    ("a, b", {"caption_tag_dropout_rate": 1.0}, "", ()),
    ("a, b", {"caption_tag_dropout_rate": 1.0, "keep_tokens": 1}, "a", ()),
    # token warm-up at its first step: token_warmup_min tags are in use, the first ones even if they are shuffled then
    ("a, b, c, d", WARM, "a", ()),
    ("a, b, c, d", {**WARM, "token_warmup_min": 2}, "a, b", ()),
    ("a, b, c, d", {**WARM, "token_warmup_min": 0}, "", ()),
    ("a, b, c, d", {**WARM, "token_warmup_min": 3, **SHUFFLE}, "c, b, a", ()),
    ("a, b, c, d", {**WARM, "keep_tokens": 2}, "a, b, c", ()),
    ("a, b", {**WARM, "token_warmup_min": 5}, "a, b", ()),
    ("k ||| a, b ||| t", {**WARM, **KEEP}, "k, a, t", ()),
    # keys that are used together
    ("a;;;b", {**GROUP, "caption_prefix": "p;;;q,"}, "p,q, a,b", ()),
    ("a, b", {**SHUFFLE, "caption_prefix": "p"}, "b, p a", ()),  # no separator behind the prefix: it is part of the first tag
    ("a, b", {**SHUFFLE, "caption_suffix": "s"}, "b s, a", ()),
    ("b ||| c, d ||| e", {**SHUFFLE, **KEEP, "caption_prefix": "a,", "caption_suffix": ", f"}, "a, b, d, c, e, f", ()),
    ("a; b", {**SHUFFLE, **SEMICOLON, "caption_prefix": "p;", "keep_tokens": 1}, "p; b; a", ()),
    ("a, b", {**DROP, "caption_prefix": "p,"}, "a", (0.4, 0.5, 0.4)),
    ("a, b", {**DROP, "caption_prefix": "p,", "keep_tokens": 1}, "p, b", (0.4, 0.5)),
    ("b, c", {**WARM, "caption_prefix": "a,"}, "a", ()),
    ("{a|b} ||| c, d", {**WILD, **SHUFFLE, **KEEP}, "b, d, c", ()),
    ("a, {b|c ||| d}, e", {**WILD, **SHUFFLE, **KEEP}, "e, d, a", ()),  # within braces each | stands between choices
    ("a, b\nc, d, e", {**WILD, **SHUFFLE, "keep_tokens": 1}, "c, e, d", ()),
    ("{a;;;b|c;;;d}, e", {**WILD, **GROUP, **SHUFFLE}, "e, c,d", ()),
    ("{a|b}, c", {**WILD, **DROP}, "c", (0.4, 0.5)),
    ("a, b\n{c|d}, e, f", {**WILD, **WARM, "token_warmup_min": 2}, "d, e", ()),
    ("{a|b}", {**WILD, "caption_dropout_rate": 0.1}, "", (0.05,)),
    ("a;;;b ||| c, d;;;e", {**KEEP, **GROUP, **SHUFFLE}, "a,b, d,e, c", ()),
    ("a;;;b, c, d", {**WARM, **GROUP, "token_warmup_min": 2}, "a,b, c", ()),
    ("a, b, c, d", {**WARM, **DROP, "token_warmup_min": 3}, "b", (0.4, 0.5, 0.4)),
    ("a, b, c, d", {**WARM, **DROP, **SHUFFLE, "token_warmup_min": 3}, "b, a", (0.4, 0.5, 0.5)),
    ("a, b", {**SHUFFLE, **DROP, "caption_dropout_rate": 0.1}, "a", (0.1, 0.4, 0.5)),  # the whole caption is decided on first
    ("a", {"caption_dropout_rate": 0.1, "caption_dropout_every_n_epochs": 2}, "", (0.05,)),
    # all together
    (
        "x\nk ||| {r|g} frog;;;pond, hat ||| tail",
        {**WILD, **SHUFFLE, **KEEP, **GROUP, "caption_prefix": "p", "caption_suffix": "s"},
        "p k, hat, g frog,pond, tail s",
        (),
    ),
]


@pytest.mark.parametrize(("text", "settings", "expected", "draws"), PLAIN)
def test_examples(text, settings, expected, draws):
    found = process_caption(text, CaptionSettings(**settings), Scripted(*draws), epoch=1, step=1, max_train_steps=100)
    assert found == expected


@pytest.mark.parametrize(
    ("step", "warmup", "expected"),
    [
        # 5 tags, at least 1: of step s the first floor((s - 1) * 4 / 10) + 1
        (1, 10, 1),
        (3, 10, 1),
        (4, 10, 2),
        (6, 10, 3),
        (10, 10, 4),
        (11, 10, 5),
        (12, 10, 5),
        (4, 0.1, 2),  # 0.1 of 100 steps
        (11, 0.1, 5),
        (1, 0.001, 5),  # 0.1 steps: none
    ],
)
def test_token_warmup(step, warmup, expected):
    settings = CaptionSettings(token_warmup_step=warmup)
    found = process_caption("a, b, c, d, e", settings, Scripted(), epoch=1, step=step, max_train_steps=100)
    assert found == ", ".join("abcde"[:expected])


@pytest.mark.parametrize(("every", "dropped"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (3, [3, 6]), (0, [])])
def test_caption_dropout_every_n_epochs(every, dropped):
    settings = CaptionSettings(caption_dropout_every_n_epochs=every)
    captions = {epoch: process_caption("a", settings, Scripted(), epoch, 1, 100) for epoch in range(1, 7)}
    assert [epoch for epoch, caption in captions.items() if caption == ""] == dropped


@pytest.mark.parametrize(
    ("text", "settings", "replacements", "expected"),
    [
        ("a frog", {}, [("frog", "sls1 sls2")], "a sls1 sls2"),
        ("a frog", {}, [("", ["one", "two"])], "two"),
        ("a frog", {}, [("", "only")], "only"),
        ("a frog", {}, [("", ["a sls"]), ("sls", "sls1 sls2")], "a sls1 sls2"),  # later ones act on the template
        ("a frog", {}, [("frog", "toad"), ("toad", "newt")], "a newt"),
        ("a, frog", SHUFFLE, [("frog", "toad")], "toad, a"),
        ("a frog", {"caption_dropout_rate": 1.0}, [("", ["one"])], ""),
        ("", {}, [("", "template")], "template"),
    ],
)
def test_replacements(text, settings, replacements, expected):
    assert process_caption(text, CaptionSettings(**settings), Scripted(), 1, 1, 100, replacements) == expected


def test_the_table_is_as_long_as_promised():
    assert len(PLAIN) >= 100
