"""Pictures of a base model with a LoRA on it, and the features that they are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from library.config.options import ModelOptions
from library.families.detect import identify
from library.sampling.preview import PreviewOptions, draw_samples
from library.sampling.prompts import SamplePrompt
from networks.lora import create_network_from_weights

SIDE_PIXELS = 64
SAMPLE_STEPS = 30
GUIDANCE = 4.0


class Painter:
    """A base model with or without a LoRA. The same prompts and seed give the same pictures."""

    def __init__(self, base: Path, lora: Path | None = None, multiplier: float = 1.0):
        options = ModelOptions(pretrained_model_name_or_path=str(base))
        self.family = identify(options)
        self.parts = self.family.load(options, torch.float32, "cpu")
        if lora is not None:
            encoder, unet = self.parts.text_encoders[0], self.parts.unet
            network, _ = create_network_from_weights(multiplier, lora, self.parts.vae, encoder, unet, for_inference=True)
            network.apply_to(encoder, unet)
            network.load_weights(lora)
            network.eval()

    def draw(self, prompts: Sequence[str], seed: int) -> list[Image.Image]:
        """A picture for each prompt; its first noise depends on the seed and on the prompt's place in the list."""
        asked = [
            SamplePrompt(prompt=prompt, width=SIDE_PIXELS, height=SIDE_PIXELS, sample_steps=SAMPLE_STEPS, scale=GUIDANCE)
            for prompt in prompts
        ]
        return [picture for picture in draw_samples(self.family, self.parts, asked, PreviewOptions(seed)) if picture is not None]

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[N, D]: the VAE's latents of the pictures."""
        pixels = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures]) / 127.5 - 1
        with torch.no_grad():
            posterior = self.family.encode_images(self.parts, torch.from_numpy(pixels).permute(0, 3, 1, 2))
        return (posterior.mean * self.family.latent_scale).flatten(1).numpy()


def training_pictures(folder: Path) -> list[Image.Image]:
    """The pictures below a training folder at the size that is drawn, and mirrored: which way a frog looks does not matter."""
    size = (SIDE_PIXELS, SIDE_PIXELS)
    opened = [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.png"))]
    pictures = [picture.resize(size, Image.Resampling.LANCZOS) for picture in opened]
    return pictures + [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures]
