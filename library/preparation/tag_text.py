"""From a tagger's probabilities to the tags of an image: thresholds, spelling, replacements and order."""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from library.errors import UserError

ORDER = ("general", "character", "copyright", "artist", "meta", "model")  # of the groups in a caption
BEST_OF = ("rating", "quality")  # of these categories an image has one tag: the most probable


class Label(NamedTuple):
    """One output of a tagger."""

    name: str
    category: str  # one of ORDER or BEST_OF


@dataclass(frozen=True, kw_only=True)
class TagRules:
    """How tags are chosen and written."""

    thresholds: dict[str, float]  # by category of ORDER
    first: tuple[str, ...] = ()  # categories of BEST_OF that are written before all other tags
    last: tuple[str, ...] = ()  # and those written after all
    character_tags_first: bool = False
    remove_underscore: bool = False
    character_tag_expand: bool = False  # name_(series) becomes name, series
    replacements: dict[str, str] = field(default_factory=dict)  # by `comparable` tag
    undesired: frozenset[str] = frozenset()  # `comparable`
    always_first: tuple[str, ...] = ()  # `comparable`


def tag_chooser(labels: Sequence[Label], rules: TagRules) -> Callable[[np.ndarray], list[str]]:
    """The function that turns the probabilities of the labels into an image's tags."""
    limits = np.array([rules.thresholds.get(label.category, np.inf) for label in labels], np.float32)
    groups = {name: np.array([i for i, label in enumerate(labels) if label.category == name], int) for name in BEST_OF}

    def choose(probabilities: np.ndarray) -> list[str]:
        found = defaultdict(list)
        for index in np.flatnonzero(probabilities >= limits).tolist():
            found[labels[index].category].append(labels[index].name)
        for name, indices in groups.items():
            if len(indices):
                found[name] = [labels[indices[probabilities[indices].argmax()]].name]
        return _written(found, rules)

    return choose


def _written(found: dict[str, list[str]], rules: TagRules) -> list[str]:
    order = sorted(ORDER, key=lambda name: name != "character") if rules.character_tags_first else ORDER
    tags = []
    for category in (*rules.first, *order, *rules.last):
        for name in found.get(category, []):
            parts = _expanded(name) if rules.character_tag_expand and category == "character" else [name]
            tags += [_respelled(part, rules) for part in parts]
    tags = [tag for tag in dict.fromkeys(tags) if comparable(tag) not in rules.undesired]
    places = {tag: place for place, tag in enumerate(rules.always_first)}
    return sorted(tags, key=lambda tag: places.get(comparable(tag), len(places)))


def _expanded(name: str) -> list[str]:
    """`name_(series)` as two tags."""
    match = re.fullmatch(r"(.+?)_?\(([^()]+)\)", name)
    return [match[1], match[2]] if match else [name]


def _respelled(tag: str, rules: TagRules) -> str:
    replacement = rules.replacements.get(comparable(tag))
    if replacement is not None:
        return replacement
    return without_underscores(tag) if rules.remove_underscore else tag


def without_underscores(tag: str) -> str:
    """Spaces for underscores, except in faces such as ^_^ and o_o, which have no two letters or digits side by side."""
    return tag.replace("_", " ") if re.search(r"[^\W_]{2}", tag) else tag


def comparable(tag: str) -> str:
    """The same text for all ways to write a tag."""
    return tag.strip().replace("_", " ").lower()


def comparable_tags(text: str | None) -> tuple[str, ...]:
    """The tags of a comma-separated option."""
    return tuple(tag for part in (text or "").split(",") if (tag := comparable(part)))


def read_replacements(text: str | None) -> dict[str, str]:
    r"""`old,new;old,new` by comparable old tag; \, and \; stand for a comma and a semicolon within a tag."""
    replacements = {}
    for pair in _split(text or "", ";"):
        if not pair.strip():
            continue
        parts = [re.sub(r"\\([,;])", r"\1", part).strip() for part in _split(pair, ",")]
        if len(parts) != 2 or not all(parts):
            raise UserError(rf'--tag_replacement: "{pair.strip()}" is not "old tag,new tag" (a comma within a tag is written \,)')
        replacements[comparable(parts[0])] = parts[1]
    return replacements


def _split(text: str, mark: str) -> list[str]:
    """The parts between marks that no backslash stands before."""
    return re.split(rf"(?<!\\){mark}", text)
