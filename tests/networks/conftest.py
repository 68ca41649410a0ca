"""Models that adapters are attached to."""
from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from library.families.clip import TextEncoder
from library.types import Parts
from tests.tiny_models import tiny_sd1_parts


@pytest.fixture
def parts() -> Parts:
    return tiny_sd1_parts()


@pytest.fixture(scope="session")
def sd15() -> Parts:
    """The U-Net and the text encoder of Stable Diffusion 1.5 in their real shapes, without memory for the numbers."""
    shapes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        text_encoder = TextEncoder(CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="quick_gelu", **shapes)))
    return Parts(unet, [text_encoder], [], torch.nn.Identity())
