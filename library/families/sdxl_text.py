"""The two text encoders of Stable Diffusion XL."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from library.families.clip import ClipEncoder, build_text_model, read_captions
from library.types import Conditioning, Parts, TextSettings

if TYPE_CHECKING:
    from transformers import CLIPTextModel

USUAL_PROJECTION = 512  # transformers leaves out of a configuration what is its default


class PenultimateEncoder(ClipEncoder):
    """Gives the states before the last layer, not normalised, and nothing else."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, 77] token ids -> [B, 77, d]."""
        return self.text_model(input_ids, output_hidden_states=True).hidden_states[-2]


class PooledEncoder(ClipEncoder):
    """Also gives a vector for the whole text: the last, normalised state of its end, projected."""

    transformers_class = "CLIPTextModelWithProjection"

    def __init__(self, text_model: CLIPTextModel, projection_width: int):
        super().__init__(text_model)
        self.text_projection = nn.Linear(text_model.config.hidden_size, projection_width, bias=False)

    def forward(self, input_ids: Tensor, end_token: int) -> tuple[Tensor, Tensor]:
        """[B, 77] token ids -> [B, 77, d], [B, projection width]."""
        output = self.text_model(input_ids, output_hidden_states=True)
        ends = (input_ids == end_token).int().argmax(dim=-1)  # the first of them
        rows = torch.arange(len(input_ids), device=input_ids.device)
        return output.hidden_states[-2], self.text_projection(output.last_hidden_state[rows, ends])


def build_penultimate_encoder(config: dict[str, Any]) -> PenultimateEncoder:
    """The first encoder, with random weights."""
    return PenultimateEncoder(build_text_model(config))


def build_pooled_encoder(config: dict[str, Any]) -> PooledEncoder:
    """The second encoder, with random weights."""
    return PooledEncoder(build_text_model(config), config.get("projection_dim", USUAL_PROJECTION))


def encode_text(parts: Parts, captions: list[str], settings: TextSettings) -> Conditioning:
    """States of both encoders side by side, [B, 75 n + 2, d1 + d2]; the pooled vector of the first window."""
    first, second = parts.text_encoders
    tokens = [read_captions(tokenizer, captions, settings) for tokenizer in parts.tokenizers]
    states = first(tokens[0].flat_windows(first))
    more_states, pooled = second(tokens[1].flat_windows(second), parts.tokenizers[1].eos_token_id)
    hidden = torch.cat([tokens[0].joined(states), tokens[1].joined(more_states)], dim=-1)
    return Conditioning(hidden, pooled.unflatten(0, tokens[1].windows.shape[:2])[:, 0])
