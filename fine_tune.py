"""Train a whole Stable Diffusion model on many captioned pictures.

accelerate launch fine_tune.py --config_file run.toml --train_data_dir pictures --in_json metadata.json
"""
from library.config.scripts import FINE_TUNE
from library.train.app import main

if __name__ == "__main__":
    main(FINE_TUNE)
