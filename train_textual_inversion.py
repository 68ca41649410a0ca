"""Train a word (textual inversion): it learns what your pictures show, and the model stays as it is.

accelerate launch train_textual_inversion.py --config_file run.toml --dataset_config data.toml
"""
from library.config.scripts import TRAIN_TEXTUAL_INVERSION
from library.train.app import main

if __name__ == "__main__":
    main(TRAIN_TEXTUAL_INVERSION)
