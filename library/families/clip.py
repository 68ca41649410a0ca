"""CLIP text: windows of 75 tokens, clip skip, weighted captions, and the wrapper that gives encoders their module names."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from library.families.caption_weights import weighted_fragments

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

VOCABULARY_FOLDER = Path(__file__).parent / "clip_vocabulary"
WINDOW = 75  # tokens of content that the encoder sees at a time; with begin and end it reads 77


class TextEncoder(nn.Module):
    """A CLIP text model as `text_model`, so that its modules are named `text_model.encoder.layers.0.…`, as adapters expect."""

    def __init__(self, text_model: CLIPTextModel):
        super().__init__()
        self.text_model = text_model

    def forward(self, input_ids: Tensor, clip_skip: int | None = None) -> Tensor:
        """[B, 77] token ids -> [B, 77, d]: the states `clip_skip` layers from the end (None is 1, the last), normalised."""
        if clip_skip is None or clip_skip == 1:
            return self.text_model(input_ids).last_hidden_state
        hidden_states = self.text_model(input_ids, output_hidden_states=True).hidden_states
        return self.text_model.final_layer_norm(hidden_states[-clip_skip])


def load_tokenizer(folder: Path = VOCABULARY_FOLDER) -> CLIPTokenizer:
    """The tokenizer in this folder; the vocabulary of CLIP ships with the project."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def window_count(max_token_length: int | None) -> int:
    """How many windows a caption is given: 75 (the default), 150 and 225 tokens are 1, 2 and 3."""
    return (max_token_length or WINDOW) // WINDOW


def encode_captions(
    encoder: nn.Module,
    tokenizer: Any,
    captions: list[str],
    clip_skip: int | None = None,
    max_token_length: int | None = None,
    weighted: bool = False,
) -> Tensor:
    """Hidden states [B, 75 n + 2, d] of the captions, n windows each. Gradients flow wherever the caller lets them."""
    windows = window_count(max_token_length)
    device = next(encoder.parameters()).device
    weights = None
    if weighted:
        ids, weights = weighted_ids(tokenizer, captions, windows)
    else:
        ids = plain_ids(tokenizer, captions, windows)
    cut = cut_windows(ids, tokenizer.eos_token_id, tokenizer.pad_token_id).to(device)
    states = joined_states(encoder(cut.flatten(0, 1), clip_skip).unflatten(0, (len(captions), windows)))
    return states if weights is None else states * weights.to(states)[..., None]


def plain_ids(tokenizer: Any, captions: list[str], windows: int) -> Tensor:
    """[B, 75 n + 2] ids: begin, content (what is too long is cut off), end, padding."""
    length = windows * WINDOW + 2
    return torch.tensor(tokenizer(captions, padding="max_length", truncation=True, max_length=length).input_ids)


def weighted_ids(tokenizer: Any, captions: list[str], windows: int) -> tuple[Tensor, Tensor]:
    """As `plain_ids`, with a weight for every id; begin, end and padding weigh 1. Fragments are tokenised one by one."""
    space = windows * WINDOW
    all_ids, all_weights = [], []
    for caption in captions:
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in weighted_fragments(caption):
            fragment = tokenizer(text, truncation=True, max_length=space + 2).input_ids[1:-1]
            ids += fragment
            weights += [weight] * len(fragment)
        ids, weights = ids[:space], weights[:space]
        padding = space - len(ids)
        all_ids.append([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] + [tokenizer.pad_token_id] * padding)
        all_weights.append([1.0, *weights, 1.0] + [1.0] * padding)
    return torch.tensor(all_ids), torch.tensor(all_weights)


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
