"""The syntax of weighted captions: (x) and (x:1.3) stress, [x] plays down, a backslash makes the next character plain."""
from __future__ import annotations

import re

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
EXPLICIT_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)")


def weighted_fragments(caption: str) -> list[tuple[str, float]]:
    """Cut a caption into (text, weight). Nested weights multiply; an open bracket closes at the end; one never opened is text."""
    characters: list[str] = []
    weights: list[float] = []
    open_brackets: dict[str, list[int]] = {"(": [], "[": []}  # where each one that is still open began

    def close(bracket: str, factor: float) -> None:
        for index in range(open_brackets[bracket].pop(), len(weights)):
            weights[index] *= factor

    position = 0
    while position < len(caption):
        character = caption[position]
        explicit = EXPLICIT_WEIGHT.match(caption, position) if open_brackets["("] else None
        position += 1
        if explicit:
            close("(", float(explicit[1]))
            position = explicit.end()
        elif character in open_brackets:
            open_brackets[character].append(len(weights))
        elif character == ")" and open_brackets["("]:
            close("(", ROUND_FACTOR)
        elif character == "]" and open_brackets["["]:
            close("[", SQUARE_FACTOR)
        else:
            if character == "\\" and position < len(caption):
                character = caption[position]
                position += 1
            characters.append(character)
            weights.append(1.0)
    for bracket, factor in (("(", ROUND_FACTOR), ("[", SQUARE_FACTOR)):
        while open_brackets[bracket]:
            close(bracket, factor)
    return _joined(characters, weights)


def _joined(characters: list[str], weights: list[float]) -> list[tuple[str, float]]:
    """Neighbours of equal weight become one fragment, so that a word is tokenised whole unless the weight changes inside it."""
    fragments: list[tuple[str, float]] = []
    for character, weight in zip(characters, weights, strict=True):
        if fragments and fragments[-1][1] == weight:
            fragments[-1] = (fragments[-1][0] + character, weight)
        else:
            fragments.append((character, weight))
    return fragments
