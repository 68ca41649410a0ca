"""What `--network_args` of networks.lora may say: read, checked, as one value."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from library.config.spelling import did_you_mean
from library.errors import UserError
from networks.lora_blocks import BlockSettings, UNetLayout, side_weights

Value = TypeVar("Value")

DEFAULT_RANK = 4
BLOCK_LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
LR_WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
CONV_KEYS = ("conv_dim", "conv_alpha", "conv_block_dims", "conv_block_alphas")
SHAPE_KEYS = ("attn_only", "conv_dim", "conv_alpha", *BLOCK_LISTS)  # meaningless where a file gives the shapes
LR_RATIOS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
KNOWN_KEYS = ("dropout", "rank_dropout", "module_dropout", *SHAPE_KEYS, *LR_WEIGHTS, "block_lr_zero_threshold", *LR_RATIOS)


@dataclass(frozen=True)
class Dropouts:
    """Probabilities, at work in training mode only."""

    neuron: float = 0.0  # of one rank activation
    rank: float = 0.0  # of one rank of one sample
    module: float = 0.0  # of the whole adapter in one forward pass


@dataclass(frozen=True)
class LoRASettings:
    """Everything that shapes a LoRA network, apart from the model."""

    rank: int
    alpha: float
    conv_rank: int | None
    conv_alpha: float
    dropouts: Dropouts
    blocks: BlockSettings | None
    unet_lr_ratio: float | None  # LoRA+: learning rate of lora_up as a multiple of that of lora_down
    text_encoder_lr_ratio: float | None
    attention_only: bool = False  # the projections of attentions and nothing else

    @property
    def adapts_convolutions(self) -> bool:
        return self.conv_rank is not None or (self.blocks is not None and self.blocks.conv_ranks is not None)


class ArgumentReader:
    """Reads values out of raw strings and keeps every mistake, so that all are reported at once."""

    def __init__(self, arguments: Mapping[str, Any]):
        self.texts = {key: str(value) for key, value in arguments.items() if value is not None}
        self.mistakes = [_unknown_key(key) for key in self.texts if key not in KNOWN_KEYS]

    def given(self, *keys: str) -> list[str]:
        return [key for key in keys if key in self.texts]

    def read(self, key: str, convert: Callable[[str], Value], default: Value) -> Value:
        """`convert` raises ValueError with what the value should be."""
        if key not in self.texts:
            return default
        try:
            return convert(self.texts[key])
        except ValueError as error:
            self.mistakes.append(f"network_args {key}={self.texts[key]}: {key} {error}")
            return default

    def refuse(self, keys: Iterable[str], needed: str) -> None:
        """Keys that can do nothing here."""
        self.mistakes += [f"network_args {key}: has no effect without {needed}" for key in self.given(*keys)]

    def raise_mistakes(self) -> None:
        if self.mistakes:
            raise UserError(*self.mistakes)


def read_settings(
    network_dim: int | None,
    network_alpha: float | None,
    neuron_dropout: float | None,
    arguments: Mapping[str, Any],
    layout: UNetLayout,
) -> LoRASettings:
    """Settings from the command line's values; UserError with everything that is wrong."""
    reader = ArgumentReader(arguments)
    rank = DEFAULT_RANK if network_dim is None else int(network_dim)
    alpha = float(network_alpha or 0)
    if rank < 1:
        reader.mistakes.append(f"network_dim = {network_dim}: must be at least 1")
    conv_rank = reader.read("conv_dim", _rank, None)
    conv_alpha = reader.read("conv_alpha", _number, 1.0)
    if not reader.given("conv_dim", "conv_block_dims"):
        reader.refuse(["conv_alpha"], "conv_dim")
    attention_only = reader.read("attn_only", _truth, False)
    if attention_only:
        reader.refuse(CONV_KEYS, "the layers that attn_only leaves out; delete it, or attn_only")
    dropouts = _read_dropouts(reader, neuron_dropout)
    blocks = _read_blocks(reader, layout, (rank, alpha), (conv_rank, conv_alpha))
    ratio = reader.read("loraplus_lr_ratio", _positive_number, None)
    settings = LoRASettings(
        rank,
        alpha,
        conv_rank,
        conv_alpha,
        dropouts,
        blocks,
        unet_lr_ratio=reader.read("loraplus_unet_lr_ratio", _positive_number, ratio),
        text_encoder_lr_ratio=reader.read("loraplus_text_encoder_lr_ratio", _positive_number, ratio),
        attention_only=attention_only,
    )
    reader.raise_mistakes()
    return settings


def _read_dropouts(reader: ArgumentReader, neuron_dropout: float | None) -> Dropouts:
    """`dropout` is what the trainer hands to any network module; for this one it says the same as `--network_dropout`."""
    neuron = reader.read("dropout", _probability, None)
    if neuron_dropout is not None:
        if not 0 <= neuron_dropout < 1:
            reader.mistakes.append(f"network_dropout = {neuron_dropout}: must be at least 0 and below 1")
        if neuron not in (None, neuron_dropout):
            reader.mistakes.append(f"network_args dropout={neuron}: contradicts network_dropout = {neuron_dropout}; give one")
        neuron = neuron_dropout
    rank = reader.read("rank_dropout", _probability, 0.0)
    return Dropouts(neuron or 0.0, rank, module=reader.read("module_dropout", _probability, 0.0))


def _read_blocks(
    reader: ArgumentReader, layout: UNetLayout, plain: tuple[int, float], conv: tuple[int | None, float]
) -> BlockSettings | None:
    if not reader.given(*LR_WEIGHTS):
        reader.refuse(["block_lr_zero_threshold"], f"one of {', '.join(LR_WEIGHTS)}")
    if not reader.given("block_dims", *LR_WEIGHTS):
        reader.refuse(BLOCK_LISTS, f"block_dims or one of {', '.join(LR_WEIGHTS)}")
        return None
    count = layout.block_count
    default_conv_ranks = None if conv[0] is None else (conv[0],) * count
    conv_ranks = reader.read("conv_block_dims", lambda text: _list(text, count, _rank_or_zero), default_conv_ranks)
    if conv_ranks is None:
        reader.refuse(["conv_block_alphas"], "conv_block_dims or conv_dim")
    return BlockSettings(
        ranks=reader.read("block_dims", lambda text: _list(text, count, _rank_or_zero), (plain[0],) * count),
        alphas=reader.read("block_alphas", lambda text: _list(text, count, _number), (plain[1],) * count),
        conv_ranks=conv_ranks,
        conv_alphas=reader.read("conv_block_alphas", lambda text: _list(text, count, _number), (conv[1],) * count),
        lr_weights=_read_lr_weights(reader, layout),
    )


def _read_lr_weights(reader: ArgumentReader, layout: UNetLayout) -> tuple[float, ...] | None:
    threshold = reader.read("block_lr_zero_threshold", _number, 0.0)
    if not reader.given(*LR_WEIGHTS):
        return None
    weights = [1.0] * layout.before
    for key, count in zip(LR_WEIGHTS, (layout.down, layout.middle, layout.up), strict=True):
        weights += reader.read(key, partial(side_weights, key, count), [1.0] * count)
    weights += [1.0] * layout.after
    return tuple(weight if weight > threshold else 0.0 for weight in weights)


def _unknown_key(key: str) -> str:
    hint = did_you_mean(key, KNOWN_KEYS) or f"; it knows {', '.join(KNOWN_KEYS)}"
    return f"network_args {key}: unknown to networks.lora{hint}"


def _list(text: str, count: int, convert: Callable[[str], Value]) -> tuple[Value, ...]:
    values = tuple(convert(item) for item in text.split(","))
    if len(values) != count:
        raise ValueError(f"must hold {count} values, one per block of the U-Net, and holds {len(values)}")
    return values


def _truth(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(f"is true or false, not {text.strip()!r}")
    return text.strip().lower() == "true"


def _whole_number(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(f"takes whole numbers from {least} on, not {text.strip()!r}")
    return value


def _rank(text: str) -> int:
    return _whole_number(text, 1)


def _rank_or_zero(text: str) -> int:
    return _whole_number(text, 0)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"takes numbers, not {text.strip()!r}")
    return value


def _positive_number(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError("takes numbers above 0")
    return value


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise ValueError("takes numbers from 0 to below 1")
    return value
