"""train_textual_inversion.py for SDXL models, under the name that people's commands have.

accelerate launch sdxl_train_textual_inversion.py --config_file run.toml --dataset_config data.toml
"""
from library.config.scripts import SDXL_TRAIN_TEXTUAL_INVERSION
from library.train.app import main

if __name__ == "__main__":
    main(SDXL_TRAIN_TEXTUAL_INVERSION)
