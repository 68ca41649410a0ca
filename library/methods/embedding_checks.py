"""What can be checked of learned words before a model is loaded: that they are new, that captions hold them, their first vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from library.config.options import EmbeddingOptions
from library.config.scripts import Script
from library.data.records import PreparedDataset
from library.data.templates import token_words
from library.errors import UserError
from library.families.tokenizers import VOCABULARY_FOLDER
from library.methods.embedding_file import check_weights
from library.methods.new_words import check_words


def check_embedding(
    options: EmbeddingOptions, script: Script, encoder_count: int, prepared: Sequence[PreparedDataset]
) -> list[str]:
    """UserError with what is wrong; returns what is worth saying."""
    check_words(token_words(options), json.loads((VOCABULARY_FOLDER / "vocab.json").read_text(encoding="utf-8")))
    check_weights(options, script.per_layer, encoder_count)
    return _check_captions(options, prepared)


def _check_captions(options: EmbeddingOptions, prepared: Sequence[PreparedDataset]) -> list[str]:
    """A word that no caption holds would learn nothing."""
    if options.use_object_template or options.use_style_template or any(dataset.maker for dataset in prepared):
        return []
    token = options.token_string or ""
    # Prefix and suffix are a part of the caption too.
    holding = [
        any(token in (text or "") for text in (record.caption, caption.caption_prefix, caption.caption_suffix))
        for dataset in prepared
        for record in dataset.records
        if not record.is_reg
        for caption in (dataset.settings.subsets[record.subset].caption,)
    ]
    if not any(holding):
        raise UserError(
            f"token_string: no caption holds the word {token}, so that nothing would be learned; write it in the captions or the "
            f'names of folders ("20_{token}"), or give --use_object_template or --use_style_template'
        )
    lacking = holding.count(False)
    return [f"{lacking} of {len(holding)} captions do not hold the word {token}: they teach it nothing"] if lacking else []
