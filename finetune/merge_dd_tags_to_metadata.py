"""Put the tags that lie beside images, from DeepDanbooru, the WD14 tagger or by hand, into a metadata file.

python finetune/merge_dd_tags_to_metadata.py train_data meta.json
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.preparation.merging import Merge, merge


@dataclass(frozen=True, kw_only=True)
class MergeTagsOptions:
    """Put the tags that lie beside images into a metadata file."""

    train_data_dir: str = positional("Folder of the images and their tag files.")
    out_json: str = positional("Metadata file to write; if it exists it is read, completed and kept as .bak.")
    in_json: str | None = option(None, "Metadata file to start from.")
    full_path: bool = option(False, "Name new images by their whole path, not by their path from train_data_dir.")
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")
    caption_extension: str = option(".txt", "Extension of the tag files.")
    debug: bool = option(False, "Print each image with its tags.")


def merge_tags(options: MergeTagsOptions) -> None:
    merge(Merge(field="tags", **vars(options)))


if __name__ == "__main__":
    run_tool(MergeTagsOptions, merge_tags)
