"""What can be checked of learned words before a model is loaded: that they are new, that captions hold them, their first vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from library.config.datasets import SubsetSettings
from library.config.datasets.preservation import PRESERVED
from library.config.options import EmbeddingOptions
from library.config.scripts import Script
from library.data.records import ImageRecord, PreparedDataset
from library.data.templates import token_words
from library.errors import UserError
from library.families.tokenizers import VOCABULARY_FOLDER
from library.methods.embedding_file import check_weights
from library.methods.new_words import check_words


def check_embedding(
    options: EmbeddingOptions, script: Script, encoder_count: int, prepared: Sequence[PreparedDataset]
) -> list[str]:
    """UserError with what is wrong; returns what is worth saying."""
    if script.per_layer and encoder_count > 1:
        raise UserError(
            "pretrained_model_name_or_path: this is Stable Diffusion XL, and vectors per layer are for the 16 cross-attention "
            "layers of Stable Diffusion 1 and 2; use train_textual_inversion.py"
        )
    check_words(token_words(options), json.loads((VOCABULARY_FOLDER / "vocab.json").read_text(encoding="utf-8")))
    check_weights(options, script.per_layer, encoder_count)
    _check_kept(options, prepared)
    return _check_captions(options, prepared)


def _check_kept(options: EmbeddingOptions, prepared: Sequence[PreparedDataset]) -> None:
    """What the base model predicts is kept of captions that it understands."""
    token, has_templates = options.token_string or "", options.use_object_template or options.use_style_template
    for dataset in prepared:
        for record in dataset.records:
            subset = dataset.settings.subsets[record.subset]
            if record.is_reg:
                continue
            if token in (subset.class_prompt or ""):
                raise UserError(f"{subset.where} class_prompt: it holds the new word {token}, of which the base model knows nothing")
            if subset.custom_attributes.get(PRESERVED) and (has_templates or _has_word(token, record, subset)):
                raise UserError(
                    f"{subset.where} custom_attributes: diff_output_preservation, but the caption of {record.path} holds the new "
                    f"word {token}, of which the base model knows nothing"
                )


def _check_captions(options: EmbeddingOptions, prepared: Sequence[PreparedDataset]) -> list[str]:
    """A word that no caption holds would learn nothing."""
    if options.use_object_template or options.use_style_template or any(dataset.maker for dataset in prepared):
        return []
    token = options.token_string or ""
    holding = [
        _has_word(token, record, dataset.settings.subsets[record.subset])
        for dataset in prepared
        for record in dataset.records
        if not record.is_reg
    ]
    if not any(holding):
        raise UserError(
            f"token_string: no caption holds the word {token}, so that nothing would be learned; write it in the captions or the "
            f'names of folders ("20_{token}"), or give --use_object_template or --use_style_template'
        )
    lacking = holding.count(False)
    return [f"{lacking} of {len(holding)} captions do not hold the word {token}: they teach it nothing"] if lacking else []


def _has_word(token: str, record: ImageRecord, subset: SubsetSettings) -> bool:
    """Prefix and suffix are a part of the caption too."""
    return any(token in (text or "") for text in (record.caption, subset.caption.caption_prefix, subset.caption.caption_suffix))
