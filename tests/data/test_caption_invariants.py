"""Captions: what holds for every text, every setting and every draw."""
from __future__ import annotations

import random
import re
from collections import Counter
from math import sqrt
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from library.config.datasets import CaptionSettings
from library.data.captions import process_caption

USES = 1000
TAGS = st.lists(st.text("abcxyz ", min_size=1, max_size=4).map(str.strip).filter(bool), min_size=1, max_size=8)
TEXTS = st.text("ab ,;|{}\n", max_size=30)  # all that means something in a caption, in any order
ALL_MARKS = {"keep_tokens_separator": "|||", "secondary_separator": ";;;"}
CHANGES = st.fixed_dictionaries(
    {
        "shuffle_caption": st.booleans(),
        "enable_wildcard": st.booleans(),
        "keep_tokens": st.integers(0, 3),
        "caption_tag_dropout_rate": st.sampled_from([0.0, 0.3]),
        "token_warmup_step": st.sampled_from([0, 10]),
    }
)


def rendered(text: str, seed: int, step: int = 1, epoch: int = 1, **options: Any) -> str:
    return process_caption(text, CaptionSettings(**options), random.Random(seed), epoch, step, max_train_steps=100)


def tags_of(text: str, separator: str = ",") -> list[str]:
    return text.split(f"{separator} ") if text else []


def assert_rate(count: int, uses: int, rate: float) -> None:
    """Within five deviations of the binomial distribution, which chance leaves once in two million."""
    assert abs(count - uses * rate) <= 5 * sqrt(uses * rate * (1 - rate))


# --- rates; the draws are the same in each run of the tests, so that none fails by chance ---


@settings(derandomize=True, max_examples=20)
@given(st.floats(0, 1), st.integers(), TAGS)
def test_captions_are_dropped_at_the_rate(rate, seed, tags):
    rng, options = random.Random(seed), CaptionSettings(caption_dropout_rate=rate, shuffle_caption=True, enable_wildcard=True)
    dropped = sum(process_caption(", ".join(tags), options, rng, 1, 1, 100) == "" for _ in range(USES))
    assert_rate(dropped, USES, rate)


@settings(derandomize=True, max_examples=20)
@given(st.floats(0, 1), st.integers(), st.integers(0, 3), st.booleans())
def test_each_tag_is_dropped_at_the_rate_and_kept_ones_never(rate, seed, keep, shuffle):
    rng, tags = random.Random(seed), ["a", "b", "c;;;d", "e"]
    options = CaptionSettings(caption_tag_dropout_rate=rate, keep_tokens=keep, shuffle_caption=shuffle, **ALL_MARKS)
    found = Counter(tag for _ in range(USES) for tag in tags_of(process_caption(", ".join(tags), options, rng, 1, 1, 100)))
    for tag in tags[keep:]:
        assert_rate(found[tag.replace(";;;", ",")], USES, 1 - rate)
    assert all(found[tag.replace(";;;", ",")] == USES for tag in tags[:keep])


@settings(derandomize=True, max_examples=10)
@given(st.integers(), st.integers(1, 5), st.integers(1, 4))
def test_each_line_and_each_choice_is_as_likely_as_the_others(seed, lines, choices):
    rng, options = random.Random(seed), CaptionSettings(enable_wildcard=True)
    text = "\n".join(f"{line} {{{'|'.join('abcd'[:choices])}}}" for line in range(lines))
    found = Counter(process_caption(text, options, rng, 1, 1, 100) for _ in range(USES))
    for line in range(lines):
        for choice in "abcd"[:choices]:
            assert_rate(found[f"{line} {choice}"], USES, 1 / (lines * choices))


@given(TEXTS, st.integers(), CHANGES, st.integers(1, 5))
def test_every_nth_epoch_is_without_captions(text, seed, changes, every):
    options = {**changes, "caption_dropout_every_n_epochs": every, "caption_prefix": "p"}
    assert rendered(text, seed, epoch=3 * every, **options) == ""


# --- the marks ---


@given(TEXTS, st.integers(), CHANGES)
def test_no_mark_reaches_the_model(text, seed, changes):
    found = rendered(text, seed, **ALL_MARKS, **changes)
    assert "|||" not in found and ";;;" not in found and "\n" not in found


@given(TAGS, TAGS, TAGS, st.integers(), CHANGES)
def test_tags_outside_the_separators_stay_where_they_are(head, middle, tail, seed, changes):
    text = " ||| ".join(", ".join(part) for part in (head, middle, tail))
    found = tags_of(rendered(text, seed, **ALL_MARKS, **changes))
    assert found[: len(head)] == head and found[len(found) - len(tail) :] == tail
    assert not Counter(found[len(head) : len(found) - len(tail)]) - Counter(middle)  # nothing is made up


@given(st.lists(TAGS, min_size=1, max_size=5), st.integers(), CHANGES)
def test_what_the_secondary_separator_joins_stays_together(groups, seed, changes):
    found = tags_of(rendered(", ".join(";;;".join(group) for group in groups), seed, **ALL_MARKS, **changes))
    assert not Counter(found) - Counter(",".join(group) for group in groups)


PIECES = st.one_of(
    st.text("abc ,", max_size=4).map(lambda text: (text, [text])),
    st.just(("{{a|b}}", ["{a|b}"])),
    st.lists(st.text("abc ,;", min_size=1, max_size=4), min_size=1, max_size=4).map(lambda each: (f"{{{'|'.join(each)}}}", each)),
)


@given(st.lists(PIECES, max_size=5), st.integers())
def test_of_each_wildcard_one_choice_is_taken_and_the_rest_stays(pieces, seed):
    found = rendered("-".join(text for text, _ in pieces), seed, enable_wildcard=True)
    possible = "-".join(f"(?:{'|'.join(map(re.escape, choices))})" for _, choices in pieces)
    assert re.fullmatch(possible, found)


@given(TEXTS, st.integers(), st.integers(0, 3))
def test_what_nothing_is_asked_of_is_the_first_line_as_it_is(text, seed, keep):
    assert rendered(text, seed, keep_tokens=keep) == text.split("\n")[0]


# --- prefix and suffix ---


@given(st.lists(TAGS.map(", ".join), min_size=1, max_size=4), st.integers(), st.booleans())
def test_every_line_has_prefix_and_suffix(lines, seed, wildcard):
    found = rendered("\n".join(lines), seed, caption_prefix="PRE", caption_suffix="POST", enable_wildcard=wildcard)
    assert found in {f"PRE {line} POST" for line in (lines if wildcard else lines[:1])}


@given(st.lists(TAGS, min_size=1, max_size=4), TAGS, TAGS, st.integers(), CHANGES)
def test_a_prefix_and_a_suffix_with_separators_stay_in_their_places(lines, head, tail, seed, changes):
    options = {**changes, "caption_prefix": f"{', '.join(head)} |||", "caption_suffix": f"||| {', '.join(tail)}"}
    found = tags_of(rendered("\n".join(", ".join(line) for line in lines), seed, **ALL_MARKS, **options))
    assert found[: len(head)] == head and found[len(found) - len(tail) :] == tail


@given(TAGS, TAGS, st.integers(), CHANGES)
def test_a_prefix_of_kept_tokens_stays_in_front(tags, prefix, seed, changes):
    options = {**changes, "keep_tokens": len(prefix), "caption_prefix": f"{', '.join(prefix)},"}
    assert tags_of(rendered(", ".join(tags), seed, **options))[: len(prefix)] == prefix


# --- shuffling, dropping, warm-up ---


@given(TAGS, st.integers(0, 9), st.sampled_from([",", ";", "|"]), st.integers())
def test_shuffling_keeps_the_first_and_loses_none(tags, keep, separator, seed):
    text = f"{separator} ".join(tags)
    found = tags_of(rendered(text, seed, shuffle_caption=True, keep_tokens=keep, caption_separator=separator), separator)
    assert found[:keep] == tags[:keep]
    assert sorted(found) == sorted(tags)


@given(TAGS, st.integers(0, 9), st.floats(0, 1), st.integers())
def test_dropping_tags_spares_the_first_and_keeps_the_order(tags, keep, rate, seed):
    found = tags_of(rendered(", ".join(tags), seed, caption_tag_dropout_rate=rate, keep_tokens=keep))
    assert found[:keep] == tags[:keep]
    rest = iter(tags[keep:])
    assert all(tag in rest for tag in found[keep:])  # each is found behind the one before


@given(TAGS, st.integers(0, 3), st.integers(0, 9), st.integers(1, 40))
def test_warming_up_adds_tags_in_their_order_until_all_are_in_use(tags, keep, least, steps):
    options = {"token_warmup_step": steps, "token_warmup_min": least, "keep_tokens": keep}
    found = [tags_of(rendered(", ".join(tags), 0, step=step, **options)) for step in range(1, steps + 2)]
    assert all(use == tags[: len(use)] for use in found)
    assert [len(use) for use in found] == sorted(len(use) for use in found)
    assert len(found[0]) == min(len(tags), keep + least)
    assert found[-1] == tags


@given(TEXTS, st.integers(), CHANGES)
def test_the_same_draws_give_the_same_caption(text, seed, changes):
    options = {**ALL_MARKS, **changes, "caption_dropout_rate": 0.1, "caption_prefix": "{p|q},"}
    assert rendered(text, seed, **options) == rendered(text, seed, **options)
