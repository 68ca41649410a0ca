"""Put the captions that lie beside images into a metadata file.

python finetune/merge_captions_to_metadata.py train_data meta.json --caption_extension .txt
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.tool import run_tool
from library.preparation.merging import MergeOptions, merge


@dataclass(frozen=True, kw_only=True)
class MergeCaptionsOptions(MergeOptions):
    """Put the captions that lie beside images into a metadata file."""


def merge_captions(options: MergeCaptionsOptions) -> None:
    merge(options, "caption")


if __name__ == "__main__":
    run_tool(MergeCaptionsOptions, merge_captions)
