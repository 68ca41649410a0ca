"""Train a whole Stable Diffusion model on a few pictures of one thing (DreamBooth).

accelerate launch train_db.py --config_file run.toml --train_data_dir pictures
"""
from library.config.scripts import TRAIN_DB
from library.train.app import main

if __name__ == "__main__":
    main(TRAIN_DB)
