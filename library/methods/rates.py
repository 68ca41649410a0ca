"""The learning rates of the parts of a model that is trained itself, and the parameter groups that follow from them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from library.config.options import FullOptions, OptimizerOptions
from library.errors import UserError
from library.families.keys_sd import diffusers_unet_layout, inverted, translated, unet_table

if TYPE_CHECKING:
    from torch import nn

ENCODERS = ("text_encoder", "text_encoder_2")  # as Diffusers calls them
BLOCKS = {"sdxl": 23}  # of the U-Nets whose blocks can have rates of their own
# The first block of each kind, by the names of the original. Block 0 is what all others are told: the time and the sizes.
FIRST_BLOCKS = {"time_embed": 0, "label_emb": 0, "input_blocks": 1, "middle_block": 10, "output_blocks": 13, "out": 22}


@dataclass(frozen=True)
class ModelRates:
    """What each part learns with; 0: it is not trained."""

    unet: float
    blocks: tuple[float, ...] | None  # of the U-Net, instead of `unet`
    text_encoders: tuple[float, ...]
    last_text_step: int | None  # after it the text encoders are frozen; None: never

    @property
    def text_names(self) -> tuple[str, ...]:
        return ENCODERS[: len(self.text_encoders)]

    def of(self, name: str) -> float:
        return self.unet if name == "unet" else self.text_encoders[ENCODERS.index(name)]

    def trains(self, name: str) -> bool:
        return any(self.blocks) if name == "unet" and self.blocks else self.of(name) > 0

    def label(self, name: str) -> str:
        """The name of the part's parameter group, which logs show."""
        return name if name == "unet" else f"text_encoder{ENCODERS.index(name) + 1}"


def model_rates(
    options: FullOptions, optimizer: OptimizerOptions, family_name: str, encoders: int, always_text: bool
) -> ModelRates:
    """The rates for a model with so many text encoders; UserError for what does not fit the model.

    always_text: the text encoders are trained unless the options say otherwise.
    """
    block_count = BLOCKS.get(family_name)
    mistakes = []
    if encoders == 1:
        mistakes = [
            f"{name}: this model has one text encoder; write learning_rate_te"
            for name in ("learning_rate_te1", "learning_rate_te2")
            if getattr(optimizer, name) is not None
        ]
    if optimizer.block_lr is not None and len(optimizer.block_lr) != block_count:
        wanted = f"there must be {block_count}" if block_count else "only SDXL models take them; write learning_rate"
        mistakes.append(f"block_lr holds {len(optimizer.block_lr)} values; {wanted}")
    if mistakes:
        raise UserError(*mistakes)
    stop = options.stop_text_encoder_training
    trains_text = (always_text or options.train_text_encoder) and (stop is None or stop > 0)
    text = tuple(_text_rate(optimizer, number) if trains_text else 0.0 for number in range(1, encoders + 1))
    rates = ModelRates(optimizer.learning_rate, optimizer.block_lr, text, stop if trains_text else None)
    if not rates.trains("unet") and not any(text):
        raise UserError("there is nothing to train: learning_rate (or block_lr) is 0, and so is the text encoder's rate")
    return rates


def block_of(name: str) -> int:
    """The block of an SDXL U-Net that a tensor of this original name belongs to."""
    kind, number = name.split(".")[:2]
    return FIRST_BLOCKS[kind] + (int(number) if kind.endswith(("_blocks", "_block")) else 0)


def _text_rate(optimizer: OptimizerOptions, number: int) -> float:
    given = (optimizer.learning_rate_te1, optimizer.learning_rate_te2)[number - 1]
    if given is None:
        given = optimizer.learning_rate_te
    return optimizer.learning_rate if given is None else given


def unet_groups(unet: nn.Module, rates: ModelRates) -> list[dict[str, Any]]:
    """One group, or one for each block that is trained; other blocks are frozen."""
    if rates.blocks is None:
        return [{"params": list(unet.parameters()), "lr": rates.unet, "name": "unet"}]
    members: list[list[Any]] = [[] for _ in rates.blocks]
    table = inverted(unet_table(diffusers_unet_layout(unet.state_dict())))
    for name, parameter in unet.named_parameters():
        block = block_of(translated(name, table) or name)
        members[block].append(parameter.requires_grad_(rates.blocks[block] > 0))
    return [
        {"params": parameters, "lr": rate, "name": f"block{block}"}
        for block, (parameters, rate) in enumerate(zip(members, rates.blocks, strict=True))
        if rate > 0 and parameters
    ]
