"""Train a network (LoRA, or any module named by --network_module) on a Stable Diffusion model.

accelerate launch train_network.py --config_file run.toml --dataset_config data.toml
"""
from library.train.app import Script, main

SCRIPT = Script(name="train_network.py", tracker="network_train")

if __name__ == "__main__":
    main(SCRIPT)
