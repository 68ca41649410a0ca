"""Put the tags that lie beside images, from DeepDanbooru, the WD14 tagger or by hand, into a metadata file.

python finetune/merge_dd_tags_to_metadata.py train_data meta.json
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import run_tool
from library.preparation.merging import MergeOptions, merge


@dataclass(frozen=True, kw_only=True)
class MergeTagsOptions(MergeOptions):
    """Put the tags that lie beside images into a metadata file."""

    caption_extension: str = option(".txt", "Extension of the text files.")


def merge_tags(options: MergeTagsOptions) -> None:
    merge(options, "tags")


if __name__ == "__main__":
    run_tool(MergeTagsOptions, merge_tags)
