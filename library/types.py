"""The values that travel between packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SampleRef:
    """One entry of an epoch: `entry` counts image x repeat within its dataset, so that repeats are augmented differently."""

    dataset: int
    entry: int


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch stands in the run. With the seed it determines every random draw that is made for it."""

    epoch: int  # 1-based
    step: int  # the optimizer step that the batch contributes to, 1-based
    micro_step: int  # 0-based, within the step
    samples: tuple[SampleRef, ...]
    first_position: int  # the position of samples[0] in the global batch (all processes) of this micro-step
    ends_step: bool
    ends_epoch: bool
    share: float  # factor of this batch's loss, so that a step is the mean over its real batches; 0: a filler copy


@dataclass
class Posterior:
    """What a VAE says of a picture: unscaled mean and standard deviation, each [B, C, h, w]; std 0: a sample."""

    mean: Tensor
    std: Tensor


@dataclass
class ClassPrompts:
    """What some samples of a batch are trained on besides: prompts of which the model is to go on to predict what it does untrained."""

    samples: list[int]  # their numbers in the batch
    prompts: list[str]
    weight: float  # in the loss
    conditioning: Conditioning | None = None  # of the prompts, where it is cached


@dataclass
class Batch:
    """What one forward pass trains on. Images or posterior: exactly one of the two is given."""

    place: BatchPlace
    captions: list[str]  # processed
    image_paths: list[str]
    loss_weights: Tensor  # [B] float32: 1, or prior_loss_weight for regularisation images
    images: Tensor | None  # [B, 3, H, W] uint8; float32 in [-1, 1] if a class of the user's made them
    posterior: Posterior | None  # cached latents
    masks: Tensor | None  # [B, H, W] in [0, 1], weights of the loss per pixel
    original_sizes_hw: Tensor  # [B, 2] int64
    crop_top_lefts: Tensor  # [B, 2] int64
    target_sizes_hw: Tensor  # [B, 2] int64
    flipped: list[bool]
    subsets: list[int] = field(default_factory=list)  # of each sample, within its dataset; empty: a class of the user's made it
    network_multiplier: float = 1.0  # strength of the trained network for the dataset that the batch is of
    custom_attributes: list[dict[str, Any]] = field(default_factory=list)
    conditioning: Conditioning | None = None  # of the captions, where it is cached
    class_prompts: ClassPrompts | None = None
    loss_factor: float = 1.0  # 2 with class pictures beside as many others: their loss is the sum of two means, not the mean of all


@dataclass(frozen=True)
class TextSettings:
    """How captions are read."""

    clip_skip: int | None = None  # the layer, counted from the end, whose states are taken; None is the last, 1
    max_token_length: int | None = None  # None is 75
    weighted: bool = False  # whether brackets in captions are weights
    no_padding: bool = False  # states end with the longest caption of the batch


@dataclass
class Conditioning:
    """Encoded text: hidden states [B, n, d], for some families a pooled vector [B, d]."""

    hidden_states: Tensor
    pooled: Tensor | None = None

    def to(self, device: torch.device) -> Conditioning:
        return Conditioning(self.hidden_states.to(device), None if self.pooled is None else self.pooled.to(device))


@dataclass
class Parts:
    """The modules of a model. Text encoders are wrapped so that their modules are named `text_model.encoder.layers...`."""

    unet: nn.Module
    text_encoders: list[nn.Module]
    tokenizers: list[Any]
    vae: nn.Module
