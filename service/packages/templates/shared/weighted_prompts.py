"""Prompts with weights: (more), (much more:1.5), [less]; long ones in pieces of 75 words."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import torch

MORE = 1.1
MOST_WEIGHT = 10.0
MOST_PIECES = 8  # of 75 words, as the text encoder takes them
WORDS = 75  # of a piece, between its beginning and its end
WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")


class Part(NamedTuple):
    """Some text, and how much it counts."""

    text: str
    weight: float


def read_prompt(prompt: str) -> list[Part]:
    """The parts of a prompt. A bracket that has no partner, or stands behind a backslash, is only a bracket."""
    parts: list[Part] = []
    text, place = "", 0
    while place < len(prompt):
        letter = prompt[place]
        if letter == "\\" and prompt[place + 1 : place + 2] in tuple("()[]\\"):
            text, place = text + prompt[place + 1], place + 2
            continue
        end = _partner(prompt, place) if letter in "([" else None
        if end is None:
            text, place = text + letter, place + 1
            continue
        parts, text = _with(parts, Part(text, 1.0)), ""
        inside, factor = prompt[place + 1 : end], MORE if letter == "(" else 1 / MORE
        written = WEIGHT.search(inside) if letter == "(" else None
        if written:
            inside, factor = inside[: written.start()], max(-MOST_WEIGHT, min(float(written[1]), MOST_WEIGHT))
        for part in read_prompt(inside):
            parts = _with(parts, Part(part.text, max(-MOST_WEIGHT, min(part.weight * factor, MOST_WEIGHT))))
        place = end + 1
    return _with(parts, Part(text, 1.0))


def _with(parts: list[Part], part: Part) -> list[Part]:
    if not part.text:
        return parts
    if parts and parts[-1].weight == part.weight:
        return [*parts[:-1], Part(parts[-1].text + part.text, part.weight)]
    return [*parts, part]


def _partner(prompt: str, start: int) -> int | None:
    """Where the bracket that opens here is closed."""
    opening, closing, depth, place = prompt[start], ")" if prompt[start] == "(" else "]", 0, start
    while place < len(prompt):
        letter = prompt[place]
        place += 1
        if letter == "\\":
            place += 1
        elif letter == opening:
            depth += 1
        elif letter == closing:
            depth -= 1
            if not depth:
                return place - 1
    return None


def embeddings(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, torch.Tensor]:
    """What the pipeline takes instead of the two texts. Both get as many pieces."""
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    is_double = len(encoders) > 1
    parts = [read_prompt(prompt), read_prompt(negative_prompt)]
    found: list[list[torch.Tensor]] = [[], []]
    pooled: list[torch.Tensor] = []
    for tokenizer, encoder in encoders:
        tokens = [_tokens(tokenizer, each) for each in parts]
        pieces = min(MOST_PIECES, max(math.ceil(len(each) / WORDS) for each in tokens) or 1)
        pooled = []
        for number, each in enumerate(tokens):
            states, summary = _encoded(tokenizer, encoder, each, pieces, is_double)
            found[number].append(states)
            pooled.append(summary)
    longest = max(states.shape[1] for each in found for states in each)  # two tokenizers may count differently
    positive, negative = (torch.cat([_padded(states, longest) for states in each], dim=-1) for each in found)
    taken = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    if is_double:
        taken |= {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
    return taken


def _tokens(tokenizer: Any, parts: list[Part]) -> list[tuple[int, float]]:
    return [
        (token, part.weight)
        for part in parts
        for token in tokenizer(part.text, add_special_tokens=False, truncation=False).input_ids
    ]


def _encoded(
    tokenizer: Any, encoder: Any, tokens: list[tuple[int, float]], pieces: int, is_double: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 77 x pieces, width) and the summary of the first piece. Weights leave a piece as strong as it was."""
    states, summary = [], None
    for start in range(0, pieces * WORDS, WORDS):
        piece = tokens[start : start + WORDS]
        filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        empty = WORDS - len(piece)
        ids = [tokenizer.bos_token_id, *(token for token, _ in piece), tokenizer.eos_token_id, *[filler] * empty]
        weights = torch.tensor([1.0, *(weight for _, weight in piece), *[1.0] * (empty + 1)])
        with torch.no_grad():
            answer = encoder(torch.tensor([ids], device=encoder.device), output_hidden_states=is_double)
        plain = answer.hidden_states[-2] if is_double else answer[0]
        if summary is None:
            summary = answer[0] if is_double else plain[:, -1]
        states.append(_weighted(plain, weights.to(plain.device, plain.dtype)))
    assert summary is not None
    return torch.cat(states, dim=1), summary


def _weighted(plain: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The words against one another; how strong they are together stays. (Their mean is no measure of that: it may be nothing.)"""
    if bool((weights == 1).all()):
        return plain
    weighted = plain * weights[None, :, None]
    size = weighted.float().abs().mean()
    return weighted * (plain.float().abs().mean() / size).to(plain.dtype) if float(size) > 0 else weighted


def _padded(states: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - states.shape[1]
    return torch.nn.functional.pad(states, (0, 0, 0, missing)) if missing else states
