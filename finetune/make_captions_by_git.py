"""Caption images with GIT: a caption file beside each image that has none yet.

python finetune/make_captions_by_git.py train_data --batch_size 8 --remove_words
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.preparation.describing import describe_images, uncaptioned
from library.preparation.images import find_images, with_dot
from library.preparation.writing import write_caption


@dataclass(frozen=True, kw_only=True)
class MakeCaptionsByGitOptions:
    """Caption images with GIT: a caption file beside each image that has none yet."""

    train_data_dir: str = positional("Folder of the images.")
    caption_extension: str = option(".caption", "Extension of the caption files.")
    model_id: str = option("microsoft/git-large-textcaps", "The captioner: a folder or a Hugging Face id of a GIT model.")
    batch_size: int = option(1, "Images that the captioner looks at together.", least=1)
    max_data_loader_n_workers: int | None = option(None, "Threads that read images; left out, one for each core.", least=0)
    max_length: int = option(50, "Longest caption in tokens.", least=2)
    remove_words: bool = option(False, "Remove from captions what is said to be written in the image.")
    debug: bool = option(False, "Print each image with its caption.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")


def make_captions_by_git(options: MakeCaptionsByGitOptions) -> None:
    extension = with_dot(options.caption_extension)
    images = uncaptioned(find_images(options.train_data_dir, options.recursive), extension)
    if not images:
        return
    from library.preparation.captioners import Captioner, without_writing

    captioner = Captioner(options.model_id, "--model_id", "git", {"max_length": options.max_length})

    def keep(image: Path, caption: str) -> None:
        caption = without_writing(caption) if options.remove_words else caption
        write_caption(image.with_suffix(extension), caption)
        if options.debug:
            print(f"{image}: {caption}")

    workers = options.max_data_loader_n_workers
    describe_images(images, captioner.load, captioner.describe, keep, options.batch_size, workers, "captioning")


if __name__ == "__main__":
    run_tool(MakeCaptionsByGitOptions, make_captions_by_git)
