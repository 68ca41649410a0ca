"""CLIP text: windows of 75 tokens, clip skip, weighted captions, and the wrappers that give encoders their module names."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from library.families.caption_weights import weighted_fragments
from library.types import TextSettings

if TYPE_CHECKING:
    from transformers import CLIPTextModel

WINDOW = 75  # tokens of content that the encoder sees at a time; with begin and end it reads 77


class ClipEncoder(nn.Module):
    """A CLIP text model as `text_model`, so that its modules are named `text_model.encoder.layers.0.…`, as adapters expect."""

    transformers_class = "CLIPTextModel"  # which has modules of these names in every version of transformers, or reads them

    def __init__(self, text_model: CLIPTextModel):
        super().__init__()
        self.text_model = text_model


class TextEncoder(ClipEncoder):
    """The text encoder of Stable Diffusion 1.x and 2.x."""

    def forward(self, input_ids: Tensor, clip_skip: int | None = None) -> Tensor:
        """[B, 77] token ids -> [B, 77, d]: the states `clip_skip` layers from the end (None is 1, the last), normalised."""
        if clip_skip is None or clip_skip == 1:
            return self.text_model(input_ids).last_hidden_state
        hidden_states = self.text_model(input_ids, output_hidden_states=True).hidden_states
        return self.text_model.final_layer_norm(hidden_states[-clip_skip])


def build_text_encoder(config: dict[str, Any]) -> TextEncoder:
    """A text encoder with random weights."""
    return TextEncoder(build_text_model(config))


def build_text_model(config: dict[str, Any]) -> CLIPTextModel:
    """What encoders wrap, with random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**config))


def encode_captions(encoder: nn.Module, tokenizer: Any, captions: list[str], settings: TextSettings) -> Tensor:
    """Hidden states [B, 75 n + 2, d] of the captions, n windows each. Gradients flow wherever the caller lets them."""
    tokens = read_captions(tokenizer, captions, settings)
    return tokens.joined(encoder(tokens.flat_windows(encoder), settings.clip_skip))


@dataclass(frozen=True)
class CaptionTokens:
    """A batch of captions as an encoder reads them."""

    windows: Tensor  # [B, n, 77] ids
    weights: Tensor | None  # [B, kept], a weight for each state that is kept; None: all weigh 1
    kept: int  # states of the 75 n + 2: all, or those up to the end of the longest caption

    def flat_windows(self, encoder: nn.Module) -> Tensor:
        """[B n, 77] ids, where the encoder is."""
        return self.windows.flatten(0, 1).to(next(encoder.parameters()).device)

    def joined(self, states: Tensor) -> Tensor:
        """[B n, 77, d], what the encoder made of the windows, -> [B, kept, d]."""
        joined = joined_states(states.unflatten(0, self.windows.shape[:2]))[:, : self.kept]
        return joined if self.weights is None else joined * self.weights.to(joined)[..., None]


def read_captions(tokenizer: Any, captions: list[str], settings: TextSettings) -> CaptionTokens:
    """Captions of at most 75, 150 or 225 tokens (what is longer is cut off) as 1, 2 or 3 windows each.

    The encoder looks back only, so that leaving padding out of the states is the same as never having added it.
    """
    windows = (settings.max_token_length or WINDOW) // WINDOW
    contents, weights = token_contents(tokenizer, captions, windows * WINDOW, settings.weighted)
    kept = windows * WINDOW + 2
    if settings.no_padding:
        longest = max(map(len, contents))
        windows, kept = max(1, -(-longest // WINDOW)), longest + 2
    space = windows * WINDOW
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = torch.tensor([[bos, *content, eos] + [pad] * (space - len(content)) for content in contents])
    rows = [[1.0, *row] + [1.0] * (kept - 1 - len(row)) for row in weights]
    return CaptionTokens(cut_windows(ids, eos, pad), torch.tensor(rows) if settings.weighted else None, kept)


def token_contents(
    tokenizer: Any, captions: list[str], space: int, weighted: bool
) -> tuple[list[list[int]], list[list[float]]]:
    """For each caption the ids of its first `space` tokens, without begin and end, and a weight for each."""
    if not weighted:
        contents = [ids[1:-1] for ids in tokenizer(captions, truncation=True, max_length=space + 2).input_ids]
        return contents, [[1.0] * len(content) for content in contents]
    contents, weights = [], []
    for caption in captions:  # fragments of different weights are tokenised one by one
        ids: list[int] = []
        row: list[float] = []
        for text, weight in weighted_fragments(caption):
            fragment = tokenizer(text, truncation=True, max_length=space + 2).input_ids[1:-1]
            ids += fragment
            row += [weight] * len(fragment)
        contents.append(ids[:space])
        weights.append(row[:space])
    return contents, weights


def cut_windows(ids: Tensor, eos: int, pad: int) -> Tensor:
    """[B, 75 n + 2] -> [B, n, 77]: every window gets the begin token and an end.

    The end is the sequence's last id, except that a window whose content fills it ends with EOS, and one that holds nothing but
    padding begins with EOS (both matter where the padding is not EOS, as in SD 2).
    """
    content = ids[:, 1:-1].unflatten(1, (-1, WINDOW)).clone()
    windows = content.shape[1]
    if windows == 1:
        return ids[:, None]
    first = content[:, :, 0]
    last = content[:, :, -1]
    ends = torch.where((last == eos) | (last == pad), ids[:, -1:], eos)
    content[:, :, 0] = torch.where(first == pad, eos, first)
    begins = ids[:, :1].expand(-1, windows)
    return torch.cat([begins[..., None], content, ends[..., None]], dim=-1)


def joined_states(states: Tensor) -> Tensor:
    """[B, n, 77, d] -> [B, 75 n + 2, d]: the first begin state, the content of every window, the last end state."""
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)
