"""The tokenizers of a model: its own, or CLIP's, whose vocabulary ships with the project."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

VOCABULARY_FOLDER = Path(__file__).parent / "clip_vocabulary"
EXCLAMATION_MARK = "!"  # token 0, with which the text encoders of OpenCLIP are padded


def cached_vocabulary(model_id: str, cache: str | None) -> Path:
    """The vocabulary that ships; with a cache folder the one there, under the id, where the first run puts it."""
    if cache is None:
        return VOCABULARY_FOLDER
    folder = Path(cache) / model_id.replace("/", "_")
    if not folder.exists():
        shutil.copytree(VOCABULARY_FOLDER, folder)
    return folder


def load_tokenizer(folder: Path = VOCABULARY_FOLDER, **special_tokens: str) -> CLIPTokenizer:
    """The tokenizer in this folder. `special_tokens`, such as pad_token, are cut out of captions before anything else."""
    from transformers import CLIPTokenizer

    load: Any = CLIPTokenizer.from_pretrained
    return load(folder, local_files_only=True, **special_tokens)
