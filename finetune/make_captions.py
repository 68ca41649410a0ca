"""Caption images with BLIP: a caption file beside each image that has none yet.

python finetune/make_captions.py train_data --batch_size 8
"""
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.errors import UserError
from library.preparation.describing import describe_images, uncaptioned
from library.preparation.images import find_images, with_dot
from library.preparation.writing import write_caption

_ORIGINALS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
# The files that BLIP's authors published, and the same weights as transformers reads them.
TRANSFORMERS_IDS = {
    _ORIGINALS + "model_large_caption.pth": "Salesforce/blip-image-captioning-large",
    _ORIGINALS + "model_base_caption_capfilt_large.pth": "Salesforce/blip-image-captioning-base",
}


@dataclass(frozen=True, kw_only=True)
class MakeCaptionsOptions:
    """Caption images with BLIP: a caption file beside each image that has none yet."""

    train_data_dir: str = positional("Folder of the images.")
    caption_weights: str = option(
        _ORIGINALS + "model_large_caption.pth",
        "The captioner: a folder or a Hugging Face id of a BLIP model for transformers; the default stands for "
        "Salesforce/blip-image-captioning-large.",
    )
    caption_extension: str = option(".caption", "Extension of the caption files.")
    beam_search: bool = option(False, "Search for the most probable caption instead of drawing one.")
    batch_size: int = option(1, "Images that the captioner looks at together.", least=1)
    max_data_loader_n_workers: int | None = option(None, "Threads that read images; left out, one for each core.", least=0)
    num_beams: int = option(1, "Number of beams of --beam_search: more find better captions, and take longer.", least=1)
    top_p: float = option(0.9, "Draw among the words that make up this part of the probability.", least=0, most=1)
    max_length: int = option(75, "Longest caption in tokens.", least=1)
    min_length: int = option(5, "Shortest caption in tokens.", least=0)
    seed: int = option(42, "Seed of what is drawn.")
    debug: bool = option(False, "Print each image with its caption.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")


def make_captions(options: MakeCaptionsOptions) -> None:
    extension = with_dot(options.caption_extension)
    generation = _generation(options)
    weights = _weights(options.caption_weights)
    images = uncaptioned(find_images(options.train_data_dir, options.recursive), extension)
    if not images:
        return
    from library.preparation.captioners import Captioner

    captioner = Captioner(weights, "--caption_weights", "blip", generation)

    def describe(batch: list) -> list[str]:
        return captioner.describe(batch) if options.beam_search else captioner.describe_by_chance(batch, options.seed)

    def keep(image: Path, caption: str) -> None:
        write_caption(image.with_suffix(extension), caption)
        if options.debug:
            print(f"{image}: {caption}")

    workers = options.max_data_loader_n_workers
    describe_images(images, captioner.load, describe, keep, options.batch_size, workers, "captioning")


def _generation(options: MakeCaptionsOptions) -> dict[str, Any]:
    mistakes = []
    if options.min_length > options.max_length:
        mistakes.append(f"--min_length: {options.min_length} is more than --max_length {options.max_length}")
    if options.num_beams > 1 and not options.beam_search:
        mistakes.append("--num_beams: this is for --beam_search only; give both or none")
    if mistakes:
        raise UserError(*mistakes)
    lengths = {"max_length": options.max_length, "min_length": options.min_length}
    if options.beam_search:
        return {**lengths, "do_sample": False, "num_beams": options.num_beams}
    return {**lengths, "do_sample": True, "num_beams": 1, "top_p": options.top_p, "repetition_penalty": 1.1}


def _weights(name: str) -> str:
    known = TRANSFORMERS_IDS.get(name, name)
    if known.endswith((".pth", ".pt")):
        raise UserError(
            f"--caption_weights: {name}: files in BLIP's own format are not read; give the folder or the Hugging Face id of a "
            f"BLIP model for transformers, such as {TRANSFORMERS_IDS[MakeCaptionsOptions.caption_weights]}"
        )
    return known


if __name__ == "__main__":
    run_tool(MakeCaptionsOptions, make_captions)
