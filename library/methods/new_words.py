"""Words that a text encoder learns: their vectors beside its frozen embedding matrix. An Image is Worth One Word, arXiv 2208.01618."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from library.config.options import EmbeddingOptions
from library.data.templates import token_words
from library.errors import UserError
from library.seeding import torch_generator
from library.types import Parts

# The cross-attention layers of a U-Net of SD 1 or 2 as P+ names them (arXiv 2303.09522), in the order in which they are called.
LAYERS = (
    "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID",
    "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
)  # fmt: skip
log = logging.getLogger(__name__)


class ExtendedEmbedding(nn.Module):
    """An embedding matrix with more rows after its own: the matrix stays frozen, the new rows are trained."""

    def __init__(self, embedding: nn.Embedding, vectors: nn.Parameter):
        super().__init__()
        self.embedding = embedding
        self.vectors = vectors  # [layers, words, d] float32; one layer unless each cross-attention has vectors of its own
        self.layer = 0

    def forward(self, input_ids: Tensor) -> Tensor:
        """[...] ids -> [..., d]"""
        number = input_ids - self.embedding.num_embeddings
        is_new = number >= 0
        states = self.embedding(input_ids.masked_fill(is_new, 0))
        return torch.where(is_new[..., None], self.vectors[self.layer][number.clamp(min=0)].to(states.dtype), states)


class LayeredTextEncoder(nn.Module):
    """A text encoder whose new words mean something else to each cross-attention layer: the states of all layers side by side."""

    def __init__(self, encoder: nn.Module, embedding: ExtendedEmbedding):
        super().__init__()
        self.encoder = encoder
        self._embedding = [embedding]  # in a list: it is a part of the encoder already

    def forward(self, input_ids: Tensor, clip_skip: int | None = None) -> Tensor:
        """[B, 77] ids -> [B, 77, 16 d]"""
        (embedding,) = self._embedding
        if not (input_ids >= embedding.embedding.num_embeddings).any():
            return self.encoder(input_ids, clip_skip).repeat(1, 1, len(LAYERS))
        states = []
        for layer in range(len(LAYERS)):
            embedding.layer = layer
            states.append(self.encoder(input_ids, clip_skip))
        return torch.cat(states, dim=-1)


class NewWords:
    """What `--token_string` adds to a model: a word, or several that stand for it, with a vector in every text encoder."""

    def __init__(self, options: EmbeddingOptions, seed: int, per_layer: bool = False):
        self._options = options
        self._seed = seed
        self._per_layer = per_layer
        self.words = token_words(options)
        self.vectors = nn.ParameterList()  # one [layers, words, d] for each text encoder

    def attach(self, parts: Parts, initial: Sequence[Tensor | None]) -> None:
        """Teach tokenizers and encoders the words. initial: the vectors [layers, words, d] to start from, per encoder."""
        for number, (encoder, tokenizer, start) in enumerate(zip(parts.text_encoders, parts.tokenizers, initial, strict=True)):
            holder = next(module for module in encoder.modules() if hasattr(module, "token_embedding"))
            embedding: nn.Embedding = holder.token_embedding  # type: ignore[assignment]
            first = self._first_vectors(embedding, tokenizer, number) if start is None else start
            self._check_width(first, embedding)
            self._teach(tokenizer, embedding)
            vectors = nn.Parameter(first.to(embedding.weight.device, torch.float32, copy=True))
            self.vectors.append(vectors)
            extended = ExtendedEmbedding(embedding, vectors)
            holder.token_embedding = extended  # type: ignore[assignment]
            if self._per_layer:
                parts.text_encoders[number] = LayeredTextEncoder(encoder, extended)
        if self._per_layer:
            hand_out_layers(parts.unet)

    def _check_width(self, vectors: Tensor, embedding: nn.Embedding) -> None:
        if vectors.shape[-1] != embedding.embedding_dim:
            raise UserError(
                f"weights = {self._options.weights}: its vectors hold {vectors.shape[-1]} numbers, those of this model "
                f"{embedding.embedding_dim}; it was made for another family of models"
            )

    def _teach(self, tokenizer: Any, embedding: nn.Embedding) -> None:
        check_words(self.words, tokenizer.get_vocab())
        tokenizer.add_tokens(list(self.words))
        first = embedding.num_embeddings
        if tokenizer.convert_tokens_to_ids(list(self.words)) != list(range(first, first + len(self.words))):
            raise UserError(f"token_string: the tokenizer and the text encoder of this model do not fit: {first} words are expected")

    def _first_vectors(self, embedding: nn.Embedding, tokenizer: Any, number: int) -> Tensor:
        """[layers, words, d]: those of init_word, repeated or cut; without it, drawn like the vectors that are there."""
        matrix = embedding.weight.detach().float().cpu()
        if init_word := (self._options.init_word or "").strip():
            ids = tokenizer(init_word).input_ids[1:-1]
            if len(ids) > len(self.words) and number == 0:
                log.warning(
                    'init_word "%s" is %d tokens, of which the first %d are used; num_vectors_per_token = %d would begin with all',
                    init_word, len(ids), len(self.words), len(ids),
                )  # fmt: skip
            first = matrix[[ids[index % len(ids)] for index in range(len(self.words))]]
        else:
            noise = torch.randn(len(self.words), matrix.shape[1], generator=torch_generator(self._seed, "new words", number))
            first = matrix.mean(0) + noise * matrix.std(0)
        return first.repeat(len(LAYERS) if self._per_layer else 1, 1, 1)


def check_words(words: Sequence[str], vocabulary: Container[str]) -> None:
    """UserError if a word is known already. Tokenizers of this kind do not tell capitals from small letters."""
    if known := [word for word in words if word.lower() in vocabulary]:
        raise UserError(f"token_string: the model knows {', '.join(known)} already; write a word that does not exist")


def hand_out_layers(unet: nn.Module) -> None:
    """Every cross-attention takes its own part of the states that `LayeredTextEncoder` puts side by side."""
    layers = in_calling_order(unet)
    if len(layers) != len(LAYERS):
        raise UserError(
            f"this model has {len(layers)} cross-attention layers, and vectors per layer are for the {len(LAYERS)} of "
            "Stable Diffusion 1 and 2; use train_textual_inversion.py"
        )
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(_taking(number), with_kwargs=True)


def in_calling_order(unet: Any) -> list[nn.Module]:
    """The cross-attentions of a diffusers U-Net: down, middle, up."""
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [module for block in blocks for name, module in block.named_modules() if name.endswith(".attn2")]


def _taking(number: int) -> Any:
    def take(_module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = keywords["encoder_hidden_states"]
        return positional, {**keywords, "encoder_hidden_states": states.unflatten(-1, (len(LAYERS), -1))[..., number, :]}

    return take
