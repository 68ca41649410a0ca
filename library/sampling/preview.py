"""Draws sample pictures with the model as it is: a short loop over the family's predictions, with diffusers' schedulers."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from library.checkpoint.files import atomic_write
from library.families.base import Family
from library.sampling.prompts import SamplePrompt
from library.sampling.schedulers import make_scheduler
from library.seeding import seed_from
from library.types import Conditioning, Parts, TextSettings


@dataclass(frozen=True)
class PreviewOptions:
    """What samples share with the training."""

    seed: int  # the run's; prompts without a seed of their own are drawn from it and their place in the file
    text: TextSettings = TextSettings()
    zero_terminal_snr: bool = False


def draw_samples(
    family: Family,
    parts: Parts,
    prompts: Iterable[SamplePrompt],
    options: PreviewOptions,
    on_failure: Callable[[SamplePrompt, Exception], None] | None = None,
) -> list[Image.Image | None]:
    """A picture for each prompt, under the caller's autocast. The global generators are left alone.

    A prompt that fails is given to `on_failure`, and is None in the list; without `on_failure` the error is raised.
    """
    pictures: list[Image.Image | None] = []
    with torch.no_grad(), evaluation_mode([parts.unet, parts.vae, *parts.text_encoders]):
        for index, prompt in enumerate(prompts):
            try:
                pictures.append(_draw(family, parts, prompt, index, options))
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(prompt, error)
                pictures.append(None)
    return pictures


def _draw(family: Family, parts: Parts, prompt: SamplePrompt, index: int, options: PreviewOptions) -> Image.Image:
    """The picture of one prompt, the `index`-th of its file."""
    seed = seed_from(options.seed, "sample", index) if prompt.seed is None else prompt.seed
    return to_picture(draw_images(family, parts, [prompt], [seed], options)[0])


def draw_images(
    family: Family, parts: Parts, prompts: Sequence[SamplePrompt], seeds: Sequence[int], options: PreviewOptions
) -> list[Tensor]:
    """An image [3, H, W], about -1..1, of each prompt with its seed, all at once; the prompts' own seeds are not looked at.

    The prompts may differ in their texts only. The caller says under which autocast, in which mode the modules are, and that no
    gradients are wanted.
    """
    [shared] = {replace(prompt, prompt="", negative_prompt="", seed=None, where="") for prompt in prompts}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # on the CPU: every device draws the same picture
    scheduler = make_scheduler(shared.sample_sampler, shared.sample_steps, family.objective, options.zero_terminal_snr)
    shape = (1, family.channels, shared.height // family.vae_scale, shared.width // family.vae_scale)
    device = next(parts.unet.parameters()).device
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    latents = noise.to(device) * scheduler.init_noise_sigma
    positive = [prompt.prompt for prompt in prompts]
    captions = [prompt.negative_prompt for prompt in prompts] + positive if shared.scale > 1 else positive
    conditioning = family.encode_text(parts, captions, options.text)
    draws = {"generator": generators} if "generator" in signature(scheduler.step).parameters else {}
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = _guided(family, parts, model_input, timestep, conditioning, shared.scale)
        latents = scheduler.step(prediction, timestep, latents, **draws).prev_sample
    return [family.decode_latents(parts, latent[None])[0] for latent in latents]  # the VAE takes much memory for each


def _guided(
    family: Family, parts: Parts, model_input: Tensor, timestep: Tensor, conditioning: Conditioning, scale: float
) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022), where the conditioning holds the negative prompts and the prompts."""
    count = len(conditioning.hidden_states)
    timesteps = timestep.to(model_input.device).expand(count)
    times = count // len(model_input)
    prediction = family.predict(parts, model_input.repeat(times, 1, 1, 1), timesteps, conditioning, None).float()
    if times == 1:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + scale * (positive - negative)


def to_picture(image: Tensor) -> Image.Image:
    """[3, H, W] in -1..1 -> a picture."""
    if not torch.isfinite(image).all():
        raise ValueError('the picture holds NaN or infinite values; try mixed_precision = "bf16" instead of "fp16", or another vae')
    array = (image.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray((array * 255).round().astype(np.uint8))


@contextmanager
def evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, no dropout; afterwards every submodule is in the mode that it was in."""
    modes = [(module, module.training) for root in modules for module in root.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def save_samples(
    pictures: Sequence[Image.Image | None],
    prompts: Sequence[SamplePrompt],
    folder: Path,
    output_name: str | None,
    step: int,
    epoch: int | None = None,
) -> list[Path]:
    """Write the pictures as PNG under names of their own; nothing is overwritten. `epoch`: given at an epoch's end."""
    place = f"{step:06d}" if epoch is None else f"e{epoch:06d}"
    time = datetime.now().strftime("%Y%m%d%H%M%S")
    written = []
    for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        if picture is None:
            continue
        start = f"{output_name}_" if output_name else ""
        end = "" if prompt.seed is None else f"_{prompt.seed}"
        path = _unused(folder / f"{start}{place}_{index:02d}_{time}{end}.png")
        with atomic_write(path) as temporary:
            picture.save(temporary, format="PNG")
        written.append(path)
    return written


def _unused(path: Path) -> Path:
    """`path`, with a number behind its name if there is such a file already."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
