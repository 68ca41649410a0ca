"""Cleans captions and tags by rules, which library.preparation.clean_rules reads from a file."""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from library.preparation.merging import tags_in
from library.preparation.tag_text import comparable, without_underscores

Substitution = tuple[re.Pattern[str], str]


@dataclass(frozen=True, kw_only=True)
class CleanRules:
    """Substitutions are made in their order. Patterns about tags have to match a whole tag."""

    caption_replace: tuple[Substitution, ...] = ()
    tag_remove: tuple[re.Pattern[str], ...] = ()
    tag_replace: tuple[Substitution, ...] = ()
    only_first_of: tuple[tuple[str, ...], ...] = ()
    underscores_to_spaces: bool = False


def clean_caption(caption: str, rules: CleanRules) -> str:
    """The caption with all replacements made, again and again until nothing changes, line by line."""
    lines = [_settled(line, lambda text: _clean_line(text, rules)) for line in caption.splitlines()]
    return "\n".join(line for line in lines if line)


def _clean_line(line: str, rules: CleanRules) -> str:
    for pattern, replacement in rules.caption_replace:
        line = " ".join(pattern.sub(replacement, line).split())
    return line


def _settled(text: str, change: Callable[[str], str]) -> str:
    """Rules that make work for each other come to an end; those that undo each other are stopped."""
    for _ in range(10):
        before, text = text, change(text)
        if text == before:
            break
    return text


def clean_tags(text: str, rules: CleanRules) -> str:
    """The tags respelled, without those that are removed, each once, in their order."""
    tags = [_settled(tag, lambda tag: _clean_tag(tag, rules)) for tag in tags_in(text)]
    tags = [tag for tag in dict.fromkeys(tags) if tag and not any(pattern.fullmatch(tag) for pattern in rules.tag_remove)]
    for choices in rules.only_first_of:
        present = {comparable(tag) for tag in tags}
        surplus = [choice for choice in map(comparable, choices) if choice in present][1:]
        tags = [tag for tag in tags if comparable(tag) not in surplus]
    return ", ".join(tags)


def _clean_tag(tag: str, rules: CleanRules) -> str:
    if rules.underscores_to_spaces:
        tag = without_underscores(tag)
    for pattern, replacement in rules.tag_replace:
        if match := pattern.fullmatch(tag):
            tag = match.expand(replacement).strip()
    return tag
