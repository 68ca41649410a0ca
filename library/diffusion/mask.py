"""Masks: how much each part of a picture counts."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def apply_masks(element_loss: Tensor, masks: Tensor) -> Tensor:
    """Element loss [B, C, h, w] times the masks [B, H, W] in [0, 1], averaged down to the latents' grid.

    The mean that follows is over all elements: a picture of which little is shown teaches little.
    """
    return element_loss * F.interpolate(masks[:, None].to(element_loss), size=element_loss.shape[-2:], mode="area")
