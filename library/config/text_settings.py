"""From the options about text to the value that families take."""

from __future__ import annotations

from library.config.options import ModelOptions
from library.types import TextSettings


def text_settings(options: ModelOptions) -> TextSettings:
    """How captions are read."""
    return TextSettings(options.clip_skip, options.max_token_length, options.weighted_captions, options.no_token_padding)
