"""Options about words that are learned: textual inversion, and pivotal tuning, where a network is learned beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from library.config.declare import option
from library.config.scripts import EMBEDDING, NETWORK


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """The word that is learned (textual inversion, or together with a network), and what its vectors begin with."""

    SCRIPTS: ClassVar = (*EMBEDDING, *NETWORK)

    token_string: str | None = option(None, "The new word that will mean your thing or style; it stands in captions and prompts.")
    init_word: str | None = option(None, 'A word the model knows to begin with, such as "frog". Left out: random vectors.')
    num_vectors_per_token: int = option(1, "How many vectors stand for the word; more hold more, and take room in prompts.", least=1)
    weights: str | None = option(None, "Start from the vectors in this file of an earlier training.", private=True)
    token_lr: float | None = option(
        None, "Learning rate of the word's vectors beside a network; left out: learning_rate.", least=0, scripts=NETWORK
    )
    use_object_template: bool = option(False, 'Ignore captions; use sentences such as "a photo of a WORD".')
    use_style_template: bool = option(False, 'Ignore captions; use sentences such as "a painting in the style of WORD".')
