"""Encode the captions of a training beforehand, into the files that it reads with --cache_text_encoder_outputs_to_disk.

accelerate launch tools/cache_text_encoder_outputs.py --config_file run.toml --dataset_config data.toml
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.scripts import CACHE_TEXT_ENCODER_OUTPUTS
from library.train.app import main

if __name__ == "__main__":
    main(CACHE_TEXT_ENCODER_OUTPUTS)
