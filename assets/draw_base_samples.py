"""Draws the sheet of a model card: what a model in Diffusers layout makes of the prompts in base_prompts.txt, five to a row.

    python assets/draw_base_samples.py assets/base assets/base_samples.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.sampling.prompts import SamplePrompt, read_prompts

PROMPTS = Path(__file__).with_name("base_prompts.txt")
PER_ROW = 5
ENLARGED = 2  # times, without smoothing
MARGIN, TEXT_HEIGHT = 20, 16  # pixels


def picture_of(pipeline: StableDiffusionPipeline, prompt: SamplePrompt) -> Image.Image:
    picture = pipeline(
        prompt.prompt, width=prompt.width, height=prompt.height, num_inference_steps=prompt.sample_steps,
        guidance_scale=prompt.scale, generator=torch.Generator().manual_seed(prompt.seed or 0),
    ).images[0]  # fmt: skip
    return picture.resize((ENLARGED * picture.width, ENLARGED * picture.height), Image.Resampling.NEAREST)


def sheet(prompts: list[SamplePrompt], pictures: list[Image.Image]) -> Image.Image:
    """The prompts stand below their pictures."""
    side = max(max(picture.size) for picture in pictures)
    step_x, step_y = side + 2 * MARGIN, side + TEXT_HEIGHT + MARGIN
    drawn = Image.new("RGB", (PER_ROW * step_x, -(-len(pictures) // PER_ROW) * step_y), "white")
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=11)
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        y, x = divmod(number, PER_ROW)
        drawn.paste(picture, (x * step_x + MARGIN, y * step_y))
        draw.text((x * step_x + step_x // 2, y * step_y + side), prompt.prompt, fill="black", font=font, anchor="ma")
    return drawn


def main(model: str, output: str) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts = read_prompts(PROMPTS)
    sheet(prompts, [picture_of(pipeline, prompt) for prompt in prompts]).save(output)
    print(f"{len(prompts)} pictures in {output}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {Path(sys.argv[0]).name} MODEL_FOLDER SHEET.png")
    main(sys.argv[1], sys.argv[2])
