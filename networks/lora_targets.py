"""Which layers of a model LoRA adapts, and what they are called in LoRA files."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from networks.lora_blocks import SD_LAYOUT, SDXL_LAYOUT, UNetLayout
from networks.lora_module import Target

UNET_CLASSES = frozenset({"Transformer2DModel"})
UNET_CONV_CLASSES = frozenset({"ResnetBlock2D", "Downsample2D", "Upsample2D"})
UNET_ATTENTION_CLASSES = frozenset({"Attention"})
TEXT_ENCODER_CLASSES = frozenset({"CLIPAttention", "CLIPSdpaAttention", "CLIPMLP"})
TEXT_ENCODER_ATTENTION_CLASSES = TEXT_ENCODER_CLASSES - {"CLIPMLP"}
UNET_PREFIX = "lora_unet"
TEXT_ENCODER_PREFIX = "lora_te"


def layout_of(unet: nn.Module) -> UNetLayout:
    """The names and block numbers that LoRA files use for this U-Net."""
    config: Any = getattr(unet, "config", None)
    return SDXL_LAYOUT if getattr(config, "addition_embed_type", None) == "text_time" else SD_LAYOUT


def unet_targets(unet: nn.Module, with_convolutions: bool, attention_only: bool = False) -> list[Target]:
    """The layers of the U-Net's transformers; with convolutions also those of its residual blocks and changes of size.

    attention_only: of the transformers the projections of their attentions, not those around them.
    """
    layout = layout_of(unet)
    classes = UNET_ATTENTION_CLASSES if attention_only else UNET_CLASSES
    classes |= UNET_CONV_CLASSES if with_convolutions else frozenset()
    return [
        Target(_key_name(UNET_PREFIX, layout.module_path(path)), path, layer, block=layout.block_index(path))
        for path, layer in _layers_inside(unet, classes)
    ]


def text_encoder_targets(text_encoder: nn.Module | list[nn.Module], attention_only: bool = False) -> list[Target]:
    """The layers of one text encoder, or of several, which are then told apart by te1, te2, ..."""
    classes = TEXT_ENCODER_ATTENTION_CLASSES if attention_only else TEXT_ENCODER_CLASSES
    encoders = text_encoder if isinstance(text_encoder, list) else [text_encoder]
    numbers = [""] if len(encoders) == 1 else [str(index + 1) for index in range(len(encoders))]
    return [
        Target(_key_name(TEXT_ENCODER_PREFIX + numbers[index], path), path, layer, text_encoder=index)
        for index, encoder in enumerate(encoders)
        for path, layer in _layers_inside(encoder, classes)
    ]


def fitted(weights: Mapping[str, Tensor], targets: Iterable[Target]) -> dict[str, Tensor]:
    """A file's tensors under the names and in the shapes that this model's adapters have.

    Programs differ in what they call SDXL's layers, and in whether a linear map of each pixel is a 1x1 convolution.
    """
    targets = list(targets)
    own_names = {_key_name(UNET_PREFIX, target.path): target.name for target in targets if target.text_encoder is None}
    found = {}
    for key, tensor in weights.items():
        name, dot, rest = key.partition(".")
        found[own_names.get(name, name) + dot + rest] = tensor
    for target in targets:
        for key in (f"{target.name}.lora_down.weight", f"{target.name}.lora_up.weight"):
            if key in found and not target.is_spatial and found[key].shape[2:] in ((), (1, 1)):
                found[key] = found[key].flatten(1).reshape(*found[key].shape[:2], *[1] * (target.module.weight.ndim - 2))
    return found


def _key_name(prefix: str, path: str) -> str:
    return f"{prefix}.{path}".replace(".", "_")


def _layers_inside(root: nn.Module, classes: frozenset[str]) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Every linear layer and convolution inside modules of these classes, with its path."""
    for block_path, block in root.named_modules():
        if type(block).__name__ in classes:
            for path, layer in block.named_modules(prefix=block_path):
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    yield path, layer
