"""Draws the regularisation pictures that are missing, with the base model as it is: before a network is attached to it.

The prior-preserving part of DreamBooth (Ruiz et al. 2022, arXiv 2208.12242, section 3.3): the model is shown what it thinks of the
class, so that the subject does not take its place.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin

from library.checkpoint.files import atomic_write
from library.checkpoint.hashes import model_name
from library.checkpoint.temporary import remove_leftovers
from library.data.class_images import ClassImages, description
from library.errors import UserError
from library.sampling.preview import draw_images, evaluation_mode, to_picture
from library.sampling.prompts import SamplePrompt
from library.seeding import seed_from
from library.train.console import CountBar
from library.train.plan import Plan
from library.train.record import RunRecord
from library.train.runtime import Runtime
from library.train.samples import preview_options
from library.train.signals import Stopped
from library.types import Parts

SAMPLER, STEPS, GUIDANCE = "dpmsolver++", 30, 7.5

Group = tuple[ClassImages, tuple[int, ...]]  # what is drawn at once


def draw_class_images(plan: Plan, parts: Parts, runtime: Runtime, record: RunRecord) -> None:
    """Draw all that the plan misses, shared out over the processes; each picture is in its place as soon as its batch is done.

    Raises Stopped, in all processes, if somebody asks to stop: then the next run goes on with what is still missing.
    """
    groups = _groups(plan)
    if not groups:
        return
    if runtime.is_main:
        for folder in {wanted.folder for wanted, _ in groups}:
            remove_leftovers(folder)  # of runs that were killed
    started = time.monotonic()
    total = _missing_in(groups)
    drawing = _Drawing(plan, parts, runtime)
    try:
        with CountBar("class pictures", total, runtime.is_main) as bar:
            for first in range(0, len(groups), runtime.world_size):
                at_once = groups[first : first + runtime.world_size]
                with runtime.failing_together():
                    runtime.stop_request.check()
                    if runtime.rank < len(at_once):
                        drawing.draw(*at_once[runtime.rank])
                    bar.advance(_missing_in(at_once))
    except (Stopped, UserError) as error:
        reason = error.messages[0] if isinstance(error, UserError) else runtime.stop_request.reason or "another process was asked to"
        record.report("class_images_stopped", count=bar.done, total=total, reason=reason)
        record.events.write("end", step=plan.length.first_step - 1, finished=False, saved=False)
        record.events.close()
        raise
    record.report("class_images_drawn", count=total, seconds=round(time.monotonic() - started, 1))


def _groups(plan: Plan) -> list[Group]:
    """Every batch to draw; a folder that several datasets use counts once."""
    folders: dict[Path, ClassImages] = {}
    for dataset in plan.prepared:
        for wanted in dataset.class_images:
            folders.setdefault(wanted.folder.resolve(), wanted)
    return [(wanted, group) for wanted in folders.values() for group in wanted.groups]


def _missing_in(groups: Sequence[Group]) -> int:
    return sum(len(wanted.missing.intersection(group)) for wanted, group in groups)


class _Drawing:
    """What one process draws with."""

    def __init__(self, plan: Plan, parts: Parts, runtime: Runtime):
        self._family, self._seed, self._parts, self._runtime = plan.family, plan.seed, parts, runtime
        self._options = preview_options(plan)
        self._model = model_name(plan.settings.model.pretrained_model_name_or_path or "")

    def draw(self, wanted: ClassImages, group: tuple[int, ...]) -> None:
        """Draw the pictures of these numbers, and keep those that are missing."""
        width, height = wanted.size
        prompt = SamplePrompt(
            wanted.prompt, width=width, height=height, sample_steps=STEPS, scale=GUIDANCE, sample_sampler=SAMPLER
        )
        seeds = {number: seed_from(self._seed, "class image", wanted.prompt, number) for number in group}
        parts = self._parts
        with torch.no_grad(), evaluation_mode([parts.unet, parts.vae, *parts.text_encoders]), self._runtime.autocast():
            images = draw_images(self._family, parts, [prompt] * len(seeds), list(seeds.values()), self._options)
        for (number, seed), image in zip(seeds.items(), images, strict=True):
            if number in wanted.missing:
                keep_picture(wanted.path(number), self._picture(wanted.path(number), image), self._description(prompt, seed))

    def _picture(self, path: Path, image: torch.Tensor) -> Image.Image:
        try:
            return to_picture(image)
        except ValueError as error:
            raise UserError(f"the class picture {path} cannot be drawn: {error}") from error

    def _description(self, prompt: SamplePrompt, seed: int) -> dict[str, str]:
        facts = {"Steps": STEPS, "Sampler": SAMPLER, "CFG scale": GUIDANCE, "Seed": seed}
        return description(prompt.prompt, **facts, Size=f"{prompt.width}x{prompt.height}", Model=self._model)


def keep_picture(path: Path, picture: Image.Image, texts: dict[str, str]) -> None:
    """Write a PNG with these texts in it, whole or not at all."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    try:
        with atomic_write(path) as temporary:
            picture.save(temporary, format="PNG", pnginfo=info)
    except OSError as error:
        raise UserError(f"the class picture {path} cannot be written: {error.strerror or error}") from error
