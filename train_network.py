"""Train a network (LoRA, or any module named by --network_module) on a Stable Diffusion model.

accelerate launch train_network.py --config_file run.toml --dataset_config data.toml
"""
from library.config.scripts import TRAIN_NETWORK
from library.train.app import main

if __name__ == "__main__":
    main(TRAIN_NETWORK)
