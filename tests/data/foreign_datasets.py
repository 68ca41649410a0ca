"""Datasets as other people might write them for --dataset_class."""
from __future__ import annotations

import random

import numpy as np
import torch


class Plain:
    """Five batches of noise, with no more than what is needed."""

    batch_size = 2

    def __init__(self, tokenizer, max_token_length, resolution, debug_dataset):
        self.made_with = (tokenizer, max_token_length, resolution, debug_dataset)
        self.resolution = resolution

    def __len__(self):
        return 5

    def __getitem__(self, index):
        width, height = self.resolution
        count = 1 if index == 4 else 2
        return {"images": torch.rand(count, 3, height, width) * 2 - 1, "captions": [f"item {index}"] * count}


class Full(Plain):
    """Gives everything that an item may hold, latents instead of images; notes what it is told."""

    num_train_images = 9
    num_reg_images = 3

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told = {}
        self.steps = None

    def verify_bucket_reso_steps(self, steps):
        self.steps = steps

    def set_current_epoch(self, epoch):
        self.told["epoch"] = epoch

    def set_current_step(self, step):
        self.told["step"] = step

    def set_max_train_steps(self, steps):
        self.told["steps"] = steps

    def __getitem__(self, index):
        return {
            "images": None,
            "latents": torch.full((2, 4, 8, 8), float(index)),
            "captions": [f"{self.told} {random.random()} {np.random.rand()} {float(torch.rand(()))}"] * 2,
            "loss_weights": torch.tensor([1.0, 0.5]),
            "original_sizes_hw": torch.tensor([[100, 200], [64, 64]]),
            "crop_top_lefts": torch.tensor([[0, 3], [0, 0]]),
            "target_sizes_hw": torch.tensor([[64, 64], [64, 64]]),
            "flippeds": [True, False],
            "alpha_masks": torch.full((2, 64, 64), 0.5),
            "conditioning_images": torch.full((2, 3, 64, 64), -0.5) if index else None,
            "network_multipliers": torch.full((2,), 0.25),
            "custom_attributes": [{"score": index}, {"diff_output_preservation": True}],
            "image_keys": [f"{index}a", f"{index}b"],
            "input_ids_list": None,
        }


class Odd(Plain):
    """Items of which each is wrong in another way."""

    WRONG = (
        {"captions": ["x"]},
        {"images": torch.zeros(1, 3, 8, 8), "latents": torch.zeros(1, 4, 1, 1), "captions": ["x"]},
        {"images": torch.zeros(2, 3, 8, 8), "captions": ["x"]},
        {"images": torch.zeros(3, 3, 8, 8), "captions": ["x"] * 3},
        {"images": torch.zeros(2, 3, 8, 8), "captions": ["x"] * 2, "network_multipliers": [1.0, 0.5]},
        {"images": torch.zeros(2, 3, 8, 8), "captions": ["x"] * 2, "loss_weights": torch.ones(3)},
        [torch.zeros(1, 3, 8, 8)],
    )

    def __len__(self):
        return len(self.WRONG)

    def __getitem__(self, index):
        return self.WRONG[index]


class Empty(Plain):
    def __len__(self):
        return 0


class NoDataset:
    def __init__(self, *arguments):
        pass


class Faulty(Plain):
    def __init__(self, *arguments):
        raise TypeError("a mistake inside the class")
