"""The blocks of a U-Net as the block arguments of networks.lora number them: ranks, alphas and learning rates per block."""
from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

PRESETS: dict[str, Callable[[float], float]] = {  # of the place 0..1 within the down or the up blocks
    "cosine": lambda place: math.sin(math.pi / 2 * (1 - place)),
    "sine": lambda place: math.sin(math.pi / 2 * place),
    "linear": lambda place: place,
    "reverse_linear": lambda place: 1 - place,
    "zeros": lambda place: 0.0,
}


@dataclass(frozen=True)
class UNetLayout:
    """How adapters name the modules of one kind of U-Net, and how they number its blocks."""

    module_path: Callable[[str], str]  # path in the Diffusers model -> path in the adapter's keys, with dots
    block_index: Callable[[str], int]  # path in the Diffusers model -> place in the lists of block arguments
    down: int
    middle: int
    up: int
    before: int = 0  # blocks before the down blocks and after the up blocks, which have no learning rates of their own
    after: int = 0

    @property
    def block_count(self) -> int:
        return self.before + self.down + self.middle + self.up + self.after


def _sd_block_index(path: str) -> int:
    """Each of the four stages holds three places: resnets and attentions side by side, then the change of size."""
    if path.startswith("mid_block."):
        return 12
    match = re.match(r"(down|up)_blocks\.(\d+)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.", path)
    if match is None:
        raise ValueError(f"{path} is in no block of the U-Net")
    side, stage, kind, item = match[1], int(match[2]), match[3], int(match[4])
    place = 2 if kind.endswith("samplers") else item
    return 1 + 3 * stage + place if side == "down" else 13 + 3 * stage + place


SD_LAYOUT = UNetLayout(module_path=lambda path: path, block_index=_sd_block_index, down=12, middle=1, up=12)

SDXL_PLACES = 3  # of each stage: two (up: three) resnets, each with its attention, and the change of size
SDXL_RESNET_NAMES = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
SDXL_FIRST_BLOCK = {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}


def _sdxl_path(path: str) -> str:
    """The name that the original files give to a layer of SDXL's U-Net."""
    match = re.fullmatch(r"(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)", path)
    if match is None:
        raise ValueError(f"{path} is in no block of the U-Net")
    side, stage, kind, item, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    rest = SDXL_RESNET_NAMES[rest] if kind == "resnets" else rest
    if side == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * item}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{SDXL_PLACES * (stage + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{SDXL_PLACES * stage + 2}.2.{rest}"
    block, number = ("input_blocks", 1) if side == "down_blocks" else ("output_blocks", 0)
    return f"{block}.{number + SDXL_PLACES * stage + item}.{1 if kind == 'attentions' else 0}.{rest}"


def _sdxl_block_index(path: str) -> int:
    block, number = _sdxl_path(path).split(".")[:2]
    return SDXL_FIRST_BLOCK[block] + int(number)


SDXL_LAYOUT = UNetLayout(_sdxl_path, _sdxl_block_index, down=9, middle=3, up=9, before=1, after=1)
LAYOUTS = {"sd_v1": SD_LAYOUT, "sd_v2": SD_LAYOUT, "sdxl": SDXL_LAYOUT}  # by the name of the family


@dataclass(frozen=True)
class BlockSettings:
    """One entry per block of the U-Net; rank 0: no adapter there."""

    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    conv_ranks: tuple[int, ...] | None  # of 3x3 convolutions; None: they are left alone
    conv_alphas: tuple[float, ...]
    lr_weights: tuple[float, ...] | None  # factors of the U-Net's learning rate

    def without_untrained(self) -> BlockSettings:
        """No adapters where the learning rate is 0."""
        if self.lr_weights is None:
            return self
        ranks = tuple(rank if weight else 0 for rank, weight in zip(self.ranks, self.lr_weights, strict=True))
        conv_ranks = self.conv_ranks
        if conv_ranks is not None:
            conv_ranks = tuple(rank if weight else 0 for rank, weight in zip(conv_ranks, self.lr_weights, strict=True))
        return BlockSettings(ranks, self.alphas, conv_ranks, self.conv_alphas, self.lr_weights)


def side_weights(key: str, count: int, text: str) -> list[float]:
    """The factors of the blocks of one side from a comma list or the name of a preset. ValueError says what is wrong."""
    if "," not in text and key != "mid_lr_weight":
        return _preset_weights(text, count)
    weights = [_number(item) if item.strip() else 0.0 for item in text.split(",")]
    if len(weights) > count:
        log.warning("network_args %s: %d values for %d blocks, the last ones are left out", key, len(weights), count)
    return (weights + [1.0] * count)[:count]


def _preset_weights(text: str, count: int) -> list[float]:
    name, plus, base = (part.strip() for part in text.partition("+"))
    if name not in PRESETS:
        raise ValueError(f'takes a comma list such as "0.5,1" or one of {", ".join(PRESETS)}, alone or with +number')
    return [PRESETS[name](block / (count - 1)) + (_number(base) if plus else 0.0) for block in range(count)]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"takes numbers from 0 on, not {text.strip()!r}")
    return value
