"""Models that say in a sentence what an image shows: BLIP and GIT, through transformers."""
from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration, GitForCausalLM

from library.config.text_files import read_json
from library.data.images import read_image
from library.errors import UserError
from library.preparation.device import best_device
from library.preparation.hub import model_folder
from library.seeding import seed_from

_CLASSES: dict[str, Any] = {"blip": BlipForConditionalGeneration, "git": GitForCausalLM}


class Captioner:
    """A model with its image processor and tokenizer, and how it is to generate."""

    def __init__(self, name: str, flag: str, kind: str, generation: dict[str, Any]):
        """`flag` names the model in messages; `kind` is its model_type; `generation` goes to transformers' `generate`."""
        folder = model_folder(name, flag)
        _check_kind(folder, flag, kind)
        try:
            self._processor = AutoImageProcessor.from_pretrained(folder, backend="pil")  # the other one needs torchvision
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            model = _CLASSES[kind].from_pretrained(folder, dtype=torch.float32)
        except Exception as error:  # transformers raises anything on what is missing, damaged or of another kind
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"{flag}: {folder}: this model cannot be loaded: {reason}") from error
        self._device = best_device()
        self._model: Any = model.to(self._device).eval()
        self._generation = generation

    def load(self, path: Path) -> np.ndarray:
        """The image as the model sees it: [3, height, width]."""
        return self._processor(Image.fromarray(read_image(str(path))), return_tensors="np")["pixel_values"][0]

    @torch.no_grad()
    def describe(self, images: list[np.ndarray]) -> list[str]:
        """A caption of each image."""
        pixels = torch.from_numpy(np.stack(images)).to(self._device)
        tokens = self._model.generate(pixel_values=pixels, **self._generation)
        return [" ".join(text.split()) for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def describe_by_chance(self, images: list[np.ndarray], seed: int) -> list[str]:
        """The same where `generation` asks for sampling: chance depends on the seed and the images, not on what came before."""
        content = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in images]
        with torch.random.fork_rng([torch.cuda.current_device()] if self._device == "cuda" else []):
            torch.manual_seed(seed_from(seed, *content))
            return self.describe(images)


def _check_kind(folder: Path, flag: str, kind: str) -> None:
    """UserError, before weights are read, if the folder holds another model."""
    config = read_json(folder / "config.json", "model configuration")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != kind:
        raise UserError(f'{flag}: {folder} holds a model of the type "{found}", this tool runs models of the type "{kind}"')


_KIND = r"(?:words?|letters?|numbers?|name|text)"
_QUOTED = r"""(?:"[^"]*"?|'[^']*'?|(?!on\b|in\b|of\b|at\b)\w+)"""
_THING = r"(?:it\b|(?:the|his|her|its|their)(?: (?!and\b|with\b)\w+){1,2})"
_PLACE = rf"(?: (?:is |are )?(?:written |printed )?(?:on|in|across|at) {_THING})?"
_WRITING = re.compile(
    rf",? (?:and|with|has|that has) the {_KIND} {_QUOTED}{_PLACE}"
    rf"|,? (?:that|which) (?:says|reads) (?:the {_KIND} )?{_QUOTED}{_PLACE}"
)


def without_writing(caption: str) -> str:
    """The caption without what is said to be written in the image: models trained on TextCaps often invent that."""
    return " ".join(_WRITING.sub("", caption).split())
