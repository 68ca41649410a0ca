"""Earlier networks that become a part of the model before anything else is done with it."""
from __future__ import annotations

import logging
from typing import Any

from torch import nn

from library.config.options import NetworkOptions
from library.methods.network_module import import_network_module
from library.types import Parts

log = logging.getLogger(__name__)


def merge_base_weights(options: NetworkOptions, parts: Parts) -> None:
    """Merge the files that `--base_weights` names, each as strong as its multiplier says."""
    files = options.base_weights or ()
    if not files:
        return
    module: Any = import_network_module(options.network_module)
    multipliers = (*(options.base_weights_multiplier or ()), *[1.0] * len(files))
    encoders, weight = one_or_all(parts.text_encoders), next(parts.unet.parameters())
    for file, multiplier in zip(files, multipliers, strict=False):
        network, weights = module.create_network_from_weights(multiplier, file, parts.vae, encoders, parts.unet, for_inference=True)
        network.merge_to(encoders, parts.unet, weights, weight.dtype, str(weight.device))
        log.info("%s merged into the model with multiplier %s", file, multiplier)


def one_or_all(text_encoders: list[nn.Module]) -> nn.Module | list[nn.Module]:
    """The text encoders as network modules expect them: one by itself, several as a list."""
    return text_encoders[0] if len(text_encoders) == 1 else text_encoders
