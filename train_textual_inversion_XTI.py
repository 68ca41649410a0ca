"""Train a word that means something else to each layer of the U-Net (extended textual inversion, P+, arXiv 2303.09522).

accelerate launch train_textual_inversion_XTI.py --config_file run.toml --dataset_config data.toml
"""
from library.config.scripts import TRAIN_TEXTUAL_INVERSION_XTI
from library.train.app import main

if __name__ == "__main__":
    main(TRAIN_TEXTUAL_INVERSION_XTI)
