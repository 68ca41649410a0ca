"""Put the captions that lie beside images into a metadata file.

python finetune/merge_captions_to_metadata.py train_data meta.json --caption_extension .txt
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.preparation.merging import Merge, merge


@dataclass(frozen=True, kw_only=True)
class MergeCaptionsOptions:
    """Put the captions that lie beside images into a metadata file."""

    train_data_dir: str = positional("Folder of the images and their caption files.")
    out_json: str = positional("Metadata file to write; if it exists it is read, completed and kept as .bak.")
    in_json: str | None = option(None, "Metadata file to start from.")
    caption_extension: str = option(".caption", "Extension of the caption files.")
    full_path: bool = option(False, "Name new images by their whole path, not by their path from train_data_dir.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")
    debug: bool = option(False, "Print each image with its caption.")


def merge_captions(options: MergeCaptionsOptions) -> None:
    merge(Merge(field="caption", **vars(options)))


if __name__ == "__main__":
    run_tool(MergeCaptionsOptions, merge_captions)
