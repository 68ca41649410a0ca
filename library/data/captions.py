"""From a stored caption to the text that the model is given: prefix, dropout, wildcards, tags shuffled, words replaced."""
from __future__ import annotations

import random
import re
from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from library.config.datasets import CaptionSettings

# (searched, replacement): every occurrence of `searched` is replaced, or the whole caption if `searched` is empty. Of a list (of
# templates, say) one is chosen.
Replacement = tuple[str, str | Sequence[str]]

_BRACES = re.compile(r"{([^}]+)}")
_ESCAPES = (("{{", "\x00"), ("}}", "\x01"))  # doubled braces stand for themselves; captions hold no control characters


class TagGroups(NamedTuple):
    """A caption's tags: shuffling and dropping concern only the flexible ones."""

    head: list[str]
    flexible: list[str]
    tail: list[str]


def process_caption(
    text: str,
    settings: CaptionSettings,
    rng: random.Random,
    epoch: int,
    step: int,
    max_train_steps: int,
    replacements: Sequence[Replacement] = (),
) -> str:
    """One rendering of a stored caption. `epoch` and `step` (the optimizer step that the caption is used in) are 1-based."""
    text = _surround(text, settings.caption_prefix, settings.caption_suffix)
    if is_dropped(settings, rng, epoch):
        return ""
    text = _choose_wildcards(text, rng) if settings.enable_wildcard else text.split("\n", 1)[0]
    text = _arrange_tags(text, settings, rng, step, max_train_steps)
    if settings.secondary_separator:
        text = text.replace(settings.secondary_separator, settings.caption_separator)
    return _replace(text, replacements, rng)


def _surround(text: str, prefix: str | None, suffix: str | None) -> str:
    """Prefix and suffix on every line, with a space between."""
    lines = text.split("\n")
    return "\n".join(" ".join(part for part in (prefix, line, suffix) if part) for line in lines)


def is_dropped(settings: CaptionSettings, rng: random.Random, epoch: int) -> bool:
    """Whether this use of a caption is the empty text. The first draw that is made for a caption."""
    every = settings.caption_dropout_every_n_epochs
    if every > 0 and epoch % every == 0:
        return True
    return settings.caption_dropout_rate > 0 and rng.random() < settings.caption_dropout_rate


def _choose_wildcards(text: str, rng: random.Random) -> str:
    """One line of several, and in it one choice for each {a|b|c}. Braces do not nest; {{ and }} are literal braces."""
    text = rng.choice(text.split("\n"))
    for braces, mark in _ESCAPES:
        text = text.replace(braces, mark)
    text = _BRACES.sub(lambda found: rng.choice(found.group(1).split("|")), text)
    for braces, mark in _ESCAPES:
        text = text.replace(mark, braces[0])
    return text


def _arrange_tags(text: str, settings: CaptionSettings, rng: random.Random, step: int, max_train_steps: int) -> str:
    """Shuffle and drop tags. A text for which none of this is asked stays as it is, but for a keep_tokens_separator."""
    marked = bool(settings.keep_tokens_separator) and settings.keep_tokens_separator in text
    warmup_steps = settings.token_warmup_step
    if warmup_steps < 1:
        warmup_steps = floor(warmup_steps * max_train_steps)
    changes_tags = settings.shuffle_caption or settings.token_warmup_step > 0 or settings.caption_tag_dropout_rate > 0
    if not (changes_tags or marked):
        return text
    groups = split_tags(text, settings)
    flexible = groups.flexible
    if step - 1 < warmup_steps:
        flexible = flexible[: _warmed_up(len(flexible), settings.token_warmup_min, step - 1, warmup_steps)]
    if settings.shuffle_caption:
        rng.shuffle(flexible)
    if settings.caption_tag_dropout_rate > 0:
        flexible = [tag for tag in flexible if rng.random() >= settings.caption_tag_dropout_rate]
    joiner = settings.caption_separator.rstrip() + " "
    return joiner.join(groups.head + flexible + groups.tail)


def split_tags(text: str, settings: CaptionSettings) -> TagGroups:
    """The tags that stay in front, those that may move, and those that stay behind.

    The keep_tokens_separator, where the text has it, says which is which (a third one only separates); else keep_tokens does.
    """
    separator = settings.keep_tokens_separator
    if not separator or separator not in text:
        tags = _split(text, settings.caption_separator)
        return TagGroups(tags[: settings.keep_tokens], tags[settings.keep_tokens :], [])
    head, flexible, *tail = ([tag for tag in _split(part, settings.caption_separator) if tag] for part in text.split(separator))
    return TagGroups(head, flexible, [tag for part in tail for tag in part])


def _split(text: str, separator: str) -> list[str]:
    return [tag.strip() for tag in text.split(separator)] if separator else [text]


def _warmed_up(tag_count: int, at_least: int, steps_done: int, warmup_steps: float) -> int:
    """How many flexible tags are in use: from `at_least` to all of them in a straight line over the warm-up."""
    return floor(steps_done * ((tag_count - at_least) / warmup_steps)) + at_least


def _replace(text: str, replacements: Sequence[Replacement], rng: random.Random) -> str:
    for searched, replacement in replacements:
        chosen = replacement if isinstance(replacement, str) else rng.choice(replacement)
        text = text.replace(searched, chosen) if searched else chosen
    return text
