"""Options about words that are learned: textual inversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from library.config.declare import option
from library.config.scripts import EMBEDDING


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """The word that is learned (textual inversion), and what its vectors begin with."""

    SCRIPTS: ClassVar = EMBEDDING

    token_string: str | None = option(None, "The new word that will mean your thing or style; it stands in captions and prompts.")
    init_word: str | None = option(None, 'A word the model knows to begin with, such as "frog". Left out: random vectors.')
    num_vectors_per_token: int = option(1, "How many vectors stand for the word; more hold more, and take room in prompts.", least=1)
    weights: str | None = option(None, "Start from the vectors in this file of an earlier training.", private=True)
    use_object_template: bool = option(False, 'Ignore captions; use sentences such as "a photo of a WORD".')
    use_style_template: bool = option(False, 'Ignore captions; use sentences such as "a painting in the style of WORD".')
