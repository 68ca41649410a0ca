"""LoRA for Stable Diffusion: the network module `networks.lora`, after the contract of kohya-ss/sd-scripts' network modules."""
from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.errors import UserError
from networks.lora_blocks import LAYOUTS, SD_LAYOUT
from networks.lora_module import LoRAModule, Target
from networks.lora_settings import BLOCK_LISTS, DEFAULT_RANK, LR_WEIGHTS, SHAPE_KEYS, LoRASettings, read_settings
from networks.lora_targets import TEXT_ENCODER_PREFIX, UNET_PREFIX, fitted, layout_of, text_encoder_targets, unet_targets
from networks.lora_weights import LoadReport, linear_ranks, projections_of, ranks_and_alphas, read_weights, shorten, write_weights

log = logging.getLogger(__name__)

PlannedAdapter = tuple[Target, int, float]  # layer, rank, alpha
NamedGroup = tuple[str, dict[str, Any]]  # a parameter group for an optimizer


def check_arguments(
    family_name: str,
    network_dim: int | None,
    network_alpha: float | None,
    neuron_dropout: float | None,
    /,
    **network_args: str | float | None,
) -> None:
    """UserError if `create_network` would refuse these values for a model of this family, such as sdxl; needs no model."""
    read_settings(network_dim, network_alpha, neuron_dropout, network_args, LAYOUTS.get(family_name, SD_LAYOUT))


def check_weights(
    file: str | Path,
    shapes: Mapping[str, tuple[int, ...]],
    gives_shapes: bool,
    network_dim: int | None,
    **network_args: str | float | None,
) -> None:
    """UserError if a file with tensors of these names and shapes is no LoRA, or has another rank than the network to be made.

    gives_shapes: the network gets its ranks from the file, so that network_dim and network_args do not matter.
    """
    ranks = linear_ranks(shapes)
    if not ranks:
        raise UserError(f"{file}: there is no LoRA in it, but {shorten(sorted(shapes))}; give a file that train_network.py wrote")
    rank = network_dim or DEFAULT_RANK
    by_block = any(network_args.get(key) is not None for key in (*BLOCK_LISTS, *LR_WEIGHTS))
    if not gives_shapes and not by_block and rank not in ranks:
        found = max(ranks)
        raise UserError(f"{file}: its rank is {found}, but network_dim is {rank}; set network_dim = {found}, or use dim_from_weights")


def create_network(
    multiplier: float,
    network_dim: int | None,
    network_alpha: float | None,
    vae: nn.Module,
    text_encoder: nn.Module | list[nn.Module],
    unet: nn.Module,
    neuron_dropout: float | None = None,
    **network_args: str | float | None,
) -> LoRANetwork:
    """A fresh network, not applied to the model yet. Several text encoders come as a list."""
    settings = read_settings(network_dim, network_alpha, neuron_dropout, network_args, layout_of(unet))
    only = settings.attention_only
    layers = text_encoder_targets(text_encoder, only) + unet_targets(unet, settings.adapts_convolutions, only)
    planned = [(target, *_rank_and_alpha(target, settings)) for target in layers]
    return LoRANetwork([plan for plan in planned if plan[1] > 0], settings, multiplier)


def create_network_from_weights(
    multiplier: float,
    file: str | Path,
    vae: nn.Module,
    text_encoder: nn.Module | list[nn.Module],
    unet: nn.Module,
    weights_sd: dict[str, Tensor] | None = None,
    for_inference: bool = False,
    neuron_dropout: float | None = None,
    **network_args: str | float | None,
) -> tuple[LoRANetwork, dict[str, Tensor]]:
    """A fresh network with the adapters, ranks and alphas of a file, and the tensors of that file, which are not loaded yet."""
    layers = text_encoder_targets(text_encoder) + unet_targets(unet, with_convolutions=True)
    weights = fitted(read_weights(file) if weights_sd is None else weights_sd, layers)
    superseded = [key for key in SHAPE_KEYS if network_args.get(key) is not None]
    if superseded:
        log.warning("network_args %s: not used, the shapes come from %s", ", ".join(superseded), file)
    kept_args = {key: value for key, value in network_args.items() if key not in superseded}
    settings = read_settings(None, None, neuron_dropout, kept_args, layout_of(unet))
    shapes = ranks_and_alphas(weights)
    planned = [(target, *shapes[target.name]) for target in layers if target.name in shapes]
    strangers = sorted(shapes.keys() - {target.name for target in layers})
    if not planned:
        raise UserError(f"{file}: no adapter in it fits this model: {shorten(strangers)}; give a LoRA for this kind of model")
    if strangers:
        log.warning("%s: adapters for layers that this model does not have, ignored: %s", file, shorten(strangers))
    network = LoRANetwork(planned, settings, multiplier)
    own = {f"{lora.target.name}.{key}": value for lora in network.loras for key, value in lora.state_dict().items()}
    _check_shapes(file, weights, own, "give a LoRA for this kind of model")
    return network, weights


def _rank_and_alpha(target: Target, settings: LoRASettings) -> tuple[int, float]:
    """Rank 0: the layer is left alone."""
    if target.block is None or settings.blocks is None:
        return (settings.conv_rank or 0, settings.conv_alpha) if target.is_spatial else (settings.rank, settings.alpha)
    blocks = settings.blocks.without_untrained()
    if not target.is_spatial:
        return blocks.ranks[target.block], blocks.alphas[target.block]
    return (blocks.conv_ranks[target.block] if blocks.conv_ranks else 0), blocks.conv_alphas[target.block]


class LoRANetwork(nn.Module):
    """The adapters of one model. Only those that `apply_to` chose are part of the state."""

    def __init__(self, planned: Iterable[PlannedAdapter], settings: LoRASettings, multiplier: float):
        super().__init__()
        self.settings = settings
        self.loras = [LoRAModule(target, rank, alpha, settings.dropouts, multiplier) for target, rank, alpha in planned]

    @property
    def text_encoder_loras(self) -> list[LoRAModule]:
        return [lora for lora in self.loras if lora.target.text_encoder is not None]

    @property
    def unet_loras(self) -> list[LoRAModule]:
        return [lora for lora in self.loras if lora.target.text_encoder is None]

    def apply_to(
        self, text_encoder: nn.Module | list[nn.Module], unet: nn.Module, apply_text_encoder: bool = True, apply_unet: bool = True
    ) -> None:
        """Hooks the adapters into the model that the network was created for."""
        self.loras = (self.text_encoder_loras if apply_text_encoder else []) + (self.unet_loras if apply_unet else [])
        for lora in self.loras:
            lora.apply_to()
            self.add_module(lora.target.name, lora)

    def set_multiplier(self, multiplier: float) -> None:
        for lora in self.loras:
            lora.multiplier = multiplier

    def load_weights(self, file: str | Path) -> LoadReport:
        """Loads the tensors that the network has. UserError if a shape differs or nothing fits."""
        weights = fitted(read_weights(file), [lora.target for lora in self.loras])
        own = self.state_dict()
        if not weights.keys() & own.keys():
            wanted = f"whose keys begin with {UNET_PREFIX}_ or {TEXT_ENCODER_PREFIX}_"
            raise UserError(f"{file}: no tensor in it fits this network, {wanted}: {shorten(sorted(weights))}; give another file")
        _check_shapes(file, weights, own, "set network_dim (and conv_dim) to those of the file, or use dim_from_weights")
        for name, (_, alpha) in ranks_and_alphas(weights).items():
            if f"{name}.alpha" in own:
                weights[f"{name}.alpha"] = torch.tensor(alpha)
        alphas_before = {lora.target.name: float(lora.alpha) for lora in self.loras}
        missing, unexpected = self.load_state_dict(weights, strict=False)
        changed = [lora.target.name for lora in self.loras if float(lora.alpha) != alphas_before[lora.target.name]]
        if changed:
            log.warning("%s: its alpha is used, not the one asked for, in %s", file, shorten(changed))
        return LoadReport(tuple(missing), tuple(unexpected))

    def is_mergeable(self) -> bool:
        return True

    @torch.no_grad()
    def merge_to(
        self,
        text_encoder: nn.Module | list[nn.Module],
        unet: nn.Module,
        weights_sd: Mapping[str, Tensor],
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Adds the adapters with these weights to the layers; the layers keep their device and, without `dtype`, their type."""
        for lora in self.loras:
            lora.load_state_dict(projections_of(lora.target.name, weights_sd), strict=False)  # alpha is that of the file already
            weight = lora.target.module.weight
            lora.to(device or weight.device)
            merged = weight.to(lora.lora_up.weight) + lora.multiplier * lora.weight_delta()
            weight.data = merged.to(weight.device, dtype or weight.dtype)

    @torch.no_grad()
    def apply_max_norm_regularization(self, max_norm: float, device: object = None) -> tuple[int, float, float]:
        """Shrinks adapters whose weight is longer than `max_norm`; returns how many, and the mean and largest norm after it."""
        norms = torch.stack([lora.weight_delta_norm() for lora in self.loras])
        bounded = norms.clamp(min=max_norm / 2)
        ratios = bounded.clamp(max=max_norm) / bounded
        for lora, factor in zip(self.loras, ratios.sqrt(), strict=True):
            lora.lora_up.weight *= factor
            lora.lora_down.weight *= factor
        norms_after = norms * ratios
        scaled, mean, largest = torch.stack([(ratios != 1).sum().to(norms), norms_after.mean(), norms_after.max()]).tolist()
        return int(scaled), mean, largest

    def enable_gradient_checkpointing(self) -> None:
        """Nothing to do: an adapter keeps too little for its recomputation to pay."""

    def prepare_grad_etc(self, text_encoder: nn.Module | list[nn.Module], unet: nn.Module) -> None:
        self.requires_grad_(True)

    def on_epoch_start(self, text_encoder: nn.Module | list[nn.Module], unet: nn.Module) -> None:
        self.train()

    def get_trainable_params(self) -> Iterable[nn.Parameter]:
        return self.parameters()

    def prepare_optimizer_params(
        self, text_encoder_lr: float | None, unet_lr: float | None, default_lr: float | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Parameter groups and their names, one learning rate for all text encoders."""
        return self.prepare_optimizer_params_with_multiple_te_lrs([text_encoder_lr], unet_lr, default_lr)

    def prepare_optimizer_params_with_multiple_te_lrs(
        self, text_encoder_lrs: list[float | None] | None, unet_lr: float | None, default_lr: float | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Parameter groups and their names. What has no learning rate, or 0, is in no group."""
        self.requires_grad_(True)
        named: list[NamedGroup] = []
        for name, loras, lr in _by_text_encoder(self.text_encoder_loras, text_encoder_lrs or [None]):
            named += _named_groups(name, loras, default_lr if lr is None else lr, self.settings.text_encoder_lr_ratio)
        for name, loras, lr in self._unet_parts(default_lr if unet_lr is None else unet_lr):
            named += _named_groups(name, loras, lr, self.settings.unet_lr_ratio)
        return [group for _, group in named], [name for name, _ in named]

    def _unet_parts(self, lr: float | None) -> list[tuple[str, list[LoRAModule], float | None]]:
        """The adapters of the U-Net that share a learning rate."""
        weights = self.settings.blocks.lr_weights if self.settings.blocks else None
        if weights is None or lr is None:
            return [("unet", self.unet_loras, lr)]
        by_block: dict[int, list[LoRAModule]] = {}
        for lora in self.unet_loras:
            by_block.setdefault(lora.target.block or 0, []).append(lora)
        return [(f"unet_block{block}", by_block[block], lr * weights[block]) for block in sorted(by_block)]

    def save_weights(self, file: str | Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None) -> None:
        """Writes the adapters; the metadata gains the hashes by which other programs recognise them."""
        write_weights(file, self.state_dict(), dtype, metadata)


def _check_shapes(file: str | Path, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], remedy: str) -> None:
    for key, tensor in own.items():
        if key in weights and tensor.ndim and weights[key].shape != tensor.shape:
            shapes = f"{list(weights[key].shape)}, this network has {list(tensor.shape)}"
            raise UserError(f"{file}: {key} has the shape {shapes}; {remedy}")


def _by_text_encoder(loras: list[LoRAModule], lrs: list[float | None]) -> list[tuple[str, list[LoRAModule], float | None]]:
    """One part where one learning rate serves all, else one for each encoder."""
    if len(lrs) == 1:
        return [("textencoder", loras, lrs[0])]
    return [
        (f"textencoder {index + 1}", [lora for lora in loras if lora.target.text_encoder == index], lr)
        for index, lr in enumerate(lrs)
    ]


def _named_groups(name: str, loras: list[LoRAModule], lr: float | None, up_ratio: float | None) -> list[NamedGroup]:
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): with a ratio, the up projections are a group of their own, at lr * ratio."""
    if not loras or not lr:
        return []
    if up_ratio is None:
        return [(name, {"params": [parameter for lora in loras for parameter in lora.parameters()], "lr": lr})]
    return [
        (name, {"params": [lora.lora_down.weight for lora in loras], "lr": lr}),
        (f"{name} plus", {"params": [lora.lora_up.weight for lora in loras], "lr": lr * up_ratio}),
    ]
