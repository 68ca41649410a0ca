"""Captions for textual inversion: the word that is learned, in templates or in place of a short name."""

from __future__ import annotations

from library.config.options import EmbeddingOptions
from library.data.captions import Replacement

# The sentences of the paper (arXiv 2208.01618, appendix), for things and for styles.
OBJECTS = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of a clean {}",
    "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}", "a photo of the cool {}", "a close-up photo of a {}",
    "a bright photo of the {}", "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}",
    "a close-up photo of the {}", "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}",
    "a photo of a nice {}", "a good photo of a {}", "a photo of the nice {}", "a photo of the small {}",
    "a photo of the weird {}", "a photo of the large {}", "a photo of a cool {}", "a photo of a small {}",
)  # fmt: skip
STYLES = (
    "a painting in the style of {}", "a rendering in the style of {}", "a cropped painting in the style of {}",
    "the painting in the style of {}", "a clean painting in the style of {}", "a dirty painting in the style of {}",
    "a dark painting in the style of {}", "a picture in the style of {}", "a cool painting in the style of {}",
    "a close-up painting in the style of {}", "a bright painting in the style of {}", "a good painting in the style of {}",
    "a rendition in the style of {}", "a nice painting in the style of {}", "a small painting in the style of {}",
    "a weird painting in the style of {}", "a large painting in the style of {}",
)  # fmt: skip


def token_words(options: EmbeddingOptions) -> tuple[str, ...]:
    """The words that stand for the token, one a vector: token, token1, token2, ..."""
    token = options.token_string or ""
    return (token, *(f"{token}{number}" for number in range(1, options.num_vectors_per_token)))


def caption_replacements(options: EmbeddingOptions) -> tuple[Replacement, ...]:
    """What happens to every caption: a template in its place, if asked for; then the token becomes all of its words."""
    if not options.token_string:
        return ()
    templates = [*(OBJECTS if options.use_object_template else ()), *(STYLES if options.use_style_template else ())]
    chosen: tuple[Replacement, ...] = (("", [text.format(options.token_string) for text in templates]),) if templates else ()
    return (*chosen, *word_replacements(options))


def word_replacements(options: EmbeddingOptions) -> tuple[tuple[str, str], ...]:
    """The token as all of its words, in captions and prompts alike."""
    words = token_words(options)
    return ((words[0], " ".join(words)),) if len(words) > 1 else ()
