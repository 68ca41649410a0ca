"""Pictures of a model and of what a training has left, and the features that they are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from library.config.options import EmbeddingOptions, ModelOptions
from library.data.templates import word_replacements
from library.families.detect import identify
from library.methods.embedding_file import read_vectors
from library.methods.new_words import NewWords
from library.sampling.preview import PreviewOptions, draw_images, evaluation_mode, to_picture
from library.sampling.prompts import SamplePrompt
from library.seeding import seed_from
from networks.lora import create_network_from_weights

SIDE_PIXELS = 64
SAMPLE_STEPS = 30
GUIDANCE = 4.0


@dataclass(frozen=True)
class Learned:
    """What a training has left: a model in the place of the base, a network beside it, vectors of a word, or several of these."""

    model: Path | None = None
    network: Path | None = None
    multiplier: float = 1.0  # of the network
    word: EmbeddingOptions | None = None  # with the file of its vectors as `weights`
    per_layer: bool = False  # the vectors


class Painter:
    """A base model with what was learned. The same prompts and seed give the same pictures."""

    def __init__(self, base: Path, learned: Learned | None = None):
        learned = learned or Learned()
        options = ModelOptions(pretrained_model_name_or_path=str(learned.model or base))
        self.family = identify(options)
        self.parts = self.family.load(options, torch.float32, "cpu")
        if learned.network is not None:
            self._apply(learned.network, learned.multiplier)
        self._replacements: tuple[tuple[str, str], ...] = ()
        if learned.word is not None:
            self._teach(learned.word, learned.per_layer)

    def _apply(self, weights: Path, multiplier: float) -> None:
        encoder, unet = self.parts.text_encoders[0], self.parts.unet
        network, _ = create_network_from_weights(multiplier, weights, self.parts.vae, encoder, unet, for_inference=True)
        network.apply_to(encoder, unet)
        network.load_weights(weights)
        network.eval()

    def _teach(self, word: EmbeddingOptions, per_layer: bool) -> None:
        vectors = read_vectors(word, per_layer, len(self.parts.text_encoders))
        NewWords(word, seed=0, per_layer=per_layer).attach(self.parts, vectors)
        self._replacements = word_replacements(word)

    def draw(self, prompts: Sequence[str], seed: int) -> list[Image.Image]:
        """A picture for each prompt, all at once; its first noise depends on the seed and on the prompt's place in the list."""
        for word, words in self._replacements:
            prompts = [prompt.replace(word, words) for prompt in prompts]
        asked = [
            SamplePrompt(prompt=prompt, width=SIDE_PIXELS, height=SIDE_PIXELS, sample_steps=SAMPLE_STEPS, scale=GUIDANCE)
            for prompt in prompts
        ]
        seeds = [seed_from(seed, "sample", index) for index in range(len(prompts))]
        with torch.no_grad(), evaluation_mode([self.parts.unet, self.parts.vae, *self.parts.text_encoders]):
            return list(map(to_picture, draw_images(self.family, self.parts, asked, seeds, PreviewOptions(seed))))

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
