"""How encoded text lies in a cache file: the end of the file's name, and the keys of its arrays."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.types import Conditioning

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextLayout:
    """A family's arrays. The hidden states [B, n, d] are cut along d into one array for each text encoder."""

    suffix: str  # after the stem of the image
    hidden_keys: tuple[str, ...]
    widths: tuple[int, ...]  # the d of each
    pooled_key: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.hidden_keys, self.pooled_key) if self.pooled_key else self.hidden_keys

    def split(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """Arrays by key, each with the batch as its first dimension."""
        states = conditioning.hidden_states.split(self.widths, dim=-1)
        arrays = dict(zip(self.hidden_keys, states, strict=True))
        if self.pooled_key and conditioning.pooled is not None:
            arrays[self.pooled_key] = conditioning.pooled
        return arrays

    def join(self, arrays: Mapping[str, Tensor]) -> Conditioning:
        """What `split` took apart."""
        import torch

        states = torch.cat([arrays[key] for key in self.hidden_keys], dim=-1)
        return Conditioning(states, arrays[self.pooled_key] if self.pooled_key else None)
