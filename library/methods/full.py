"""The method that trains the model itself, or parts of it: DreamBooth and fine-tuning."""
from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.families.base import Family
from library.families.source import Layout, Trained
from library.methods.base import NotFiniteWeights
from library.methods.freezing import enable_checkpointing, freeze, not_finite
from library.methods.rates import ModelRates, unet_groups
from library.types import Batch, BatchPlace, Parts

log = logging.getLogger(__name__)


class FullMethod:
    """Trains the U-Net, text encoders, or both; whatever has the learning rate 0 stays as it is."""

    base = None  # no copy of what the model was before training is kept

    def __init__(
        self,
        family: Family,
        rates: ModelRates,
        layout: Layout,
        frozen_dtype: torch.dtype,
        no_half_vae: bool = False,
        gradient_checkpointing: bool = False,
        zero_terminal_snr: bool = False,
    ):
        self._family = family
        self._rates = rates
        self._layout: Layout = layout
        self._frozen_dtype = frozen_dtype
        self._no_half_vae = no_half_vae
        self._gradient_checkpointing = gradient_checkpointing
        self._zero_terminal_snr = zero_terminal_snr
        self._trained: dict[str, nn.Module] = {}  # by the names that Diffusers gives to parts
        self._checkpointed: list[nn.Module] = []
        self._text_is_frozen = False
        self._place: BatchPlace | None = None  # of the last batch
        self._epochs, self._steps = 0, 0  # that are done

    @property
    def trains_text_encoder(self) -> bool:
        return any(self._rates.text_encoders)

    def attach(self, parts: Parts, family_name: str) -> None:
        """Frees what is trained; the rest is frozen, in the dtype of frozen weights."""
        freeze(parts)
        self._parts = parts
        for name, module in {"unet": parts.unet, **dict(zip(self._rates.text_names, parts.text_encoders, strict=True))}.items():
            if self._rates.trains(name):
                self._trained[name] = module.requires_grad_(True)
            else:
                _cast(module, self._frozen_dtype)
        if not self._no_half_vae:
            _cast(parts.vae, self._frozen_dtype)
        if self._gradient_checkpointing:
            self._checkpointed = enable_checkpointing({parts.unet: None, **dict.fromkeys(self._trained.values())})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Of the weights as they are now: sharing them over processes puts others into their place."""
        groups: list[dict[str, Any]] = []
        for name, module in self._trained.items():
            if name == "unet":
                groups += unet_groups(module, self._rates)
            else:
                groups.append({"params": list(module.parameters()), "lr": self._rates.of(name), "name": self._rates.label(name)})
        return groups

    def modules(self) -> dict[str, nn.Module]:
        return self._trained

    def train(self) -> None:
        self._set_training(True)

    def eval(self) -> None:
        self._set_training(False)

    def _set_training(self, training: bool) -> None:
        for name, module in self._trained.items():
            module.train(training and not (self._text_is_frozen and name != "unet"))
        for module in self._checkpointed:
            module.training = training

    def before_batch(self, batch: Batch) -> None:
        place, last = batch.place, self._rates.last_text_step
        if last is not None and place.step > last and not self._text_is_frozen:
            self._freeze_text(last)
        self._place = place

    def _freeze_text(self, last: int) -> None:
        """Without gradients no optimizer moves it, by momentum or decay either."""
        for name, module in self._trained.items():
            if name != "unet":
                module.eval().requires_grad_(False)
        self._text_is_frozen = True
        log.info("the text encoder is no longer trained: stop_text_encoder_training = %d", last)

    def after_step(self) -> dict[str, float]:
        assert self._place is not None, "a batch comes first"
        self._epochs = self._place.epoch if self._place.ends_epoch else self._place.epoch - 1
        self._steps = self._place.step
        return {}

    def has_nan(self) -> bool:
        return any(not_finite(module, None) for module in self._trained.values())

    def write(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        """The whole model, with what was trained; `path` is the file, or an empty folder for the layouts of Diffusers."""
        for name, module in self._trained.items():
            if spoilt := not_finite(module, dtype):
                kind = f" as {str(dtype).removeprefix('torch.')}" if dtype else ""
                raise NotFiniteWeights(
                    f"{len(spoilt)} tensors of {name} are not finite{kind}, first {spoilt[0]}; nothing was written"
                )
        trained = Trained(self._trained.keys(), self._epochs, self._steps, self._zero_terminal_snr)
        self._family.save(self._parts, path, self._layout, dtype, metadata, trained)


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """What `module.to(dtype)` does; that of diffusers' classes also warns of modules that these do not have."""
    nn.Module.to(module, dtype)
