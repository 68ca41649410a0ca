"""The method that trains a network beside a frozen model: LoRA, and every other module that `--network_module` names."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from library.config.options import NetworkOptions, OptimizerOptions
from library.errors import UserError
from library.methods.base import NotFiniteWeights
from library.methods.base_weights import merge_base_weights, one_or_all
from library.methods.freezing import enable_checkpointing, freeze, not_finite
from library.methods.network_module import accepted_keywords, import_network_module, network_arguments, takes_positional
from library.seeding import seed_from
from library.types import Batch, Parts

log = logging.getLogger(__name__)


class AdapterMethod:
    """Trains what the network module adds to the U-Net, the text encoders, or both."""

    network: Any  # an nn.Module after the network modules' contract; set by `attach`

    def __init__(
        self,
        options: NetworkOptions,
        optimizer: OptimizerOptions,
        gradient_checkpointing: bool,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ):
        self._options = options
        self._optimizer = optimizer
        self._gradient_checkpointing = gradient_checkpointing
        self._seed = seed
        self._dtype = dtype  # of the trained weights
        self._checkpointed: list[nn.Module] = []
        self._groups: list[dict[str, Any]] = []
        self._epoch: int | None = None
        self._multiplier = 1.0
        self._training = True

    @property
    def trains_text_encoder(self) -> bool:
        rates = self._optimizer.text_encoder_lr or (self._optimizer.learning_rate,)
        return not self._options.network_train_unet_only and any(rates)

    def attach(self, parts: Parts, family_name: str) -> None:
        """The network modules' contract, in its order."""
        freeze(parts)
        self._unet, self._vae = parts.unet, parts.vae
        self._text_encoder = one_or_all(parts.text_encoders)
        module = import_network_module(self._options.network_module)
        merge_base_weights(self._options, parts)
        self.network = self._create(module)
        if hasattr(self.network, "prepare_network"):
            self.network.prepare_network(SimpleNamespace(**vars(self._options), **vars(self._optimizer)))
        self._apply()
        if self._gradient_checkpointing:
            encoders = parts.text_encoders if self.trains_text_encoder else []
            self._checkpointed = enable_checkpointing([self._unet, *encoders])
            self.network.enable_gradient_checkpointing()
        self._groups = self._named_groups(len(parts.text_encoders))
        self.network.to(next(self._unet.parameters()).device, self._dtype)
        self.network.prepare_grad_etc(self._text_encoder, self._unet)

    def _create(self, module: ModuleType) -> Any:
        """The same seed gives the same first weights, whatever was drawn before."""
        options, arguments = self._options, network_arguments(self._options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(self._seed, "network"))
            if options.dim_from_weights:
                create = module.create_network_from_weights
                arguments |= accepted_keywords(create, neuron_dropout=options.network_dropout)
                network, _ = create(1, options.network_weights, self._vae, self._text_encoder, self._unet, **arguments)
            else:
                network = module.create_network(
                    1.0,
                    options.network_dim,
                    options.network_alpha,
                    self._vae,
                    self._text_encoder,
                    self._unet,
                    neuron_dropout=options.network_dropout,
                    **arguments,
                )
        if network is None:
            raise UserError(f'network_module = "{options.network_module}": made no network from these network_args; change them')
        return network

    def _apply(self) -> None:
        options = self._options
        if options.scale_weight_norms and not hasattr(self.network, "apply_max_norm_regularization"):
            log.warning("scale_weight_norms has no effect: %s cannot scale its weights", options.network_module)
        self.network.apply_to(
            self._text_encoder, self._unet, not options.network_train_unet_only, not options.network_train_text_encoder_only
        )
        if options.network_weights:
            log.info("network_weights %s: %s", options.network_weights, self.network.load_weights(options.network_weights))

    def _named_groups(self, text_encoder_count: int) -> list[dict[str, Any]]:
        result = self._ask_for_groups(text_encoder_count)
        groups, names = result if isinstance(result, tuple) else (result, [f"group{index}" for index in range(len(result))])
        groups = [
            {"lr": self._optimizer.learning_rate, **group, "params": list(group["params"]), "name": name}
            for group, name in zip(groups, names, strict=True)
        ]
        if not any(group["params"] for group in groups):
            reason = "learning_rate, unet_lr and text_encoder_lr are 0, or network_args leave no layer to adapt"
            raise UserError(f"there is nothing to train: {reason}")
        return groups

    def _ask_for_groups(self, text_encoder_count: int) -> Any:
        """Network modules differ in how many learning rates they take; their signature says it."""
        text_lrs = list(self._optimizer.text_encoder_lr or ()) or None
        rates = (self._optimizer.unet_lr, self._optimizer.learning_rate)
        if text_lrs and len(text_lrs) not in (1, text_encoder_count):
            raise UserError(f"text_encoder_lr holds {len(text_lrs)} values; this model has {text_encoder_count} text encoder(s)")
        if hasattr(self.network, "prepare_optimizer_params_with_multiple_te_lrs"):
            return self.network.prepare_optimizer_params_with_multiple_te_lrs(text_lrs, *rates)
        if text_lrs and len(set(text_lrs)) > 1:
            raise UserError(f"text_encoder_lr holds {len(text_lrs)} values; {self._options.network_module} takes one")
        text_lr = text_lrs[0] if text_lrs else None
        prepare = self.network.prepare_optimizer_params
        return prepare(text_lr, *rates) if takes_positional(prepare, 3) else prepare(text_lr, rates[0])

    def modules(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self._groups

    def train(self) -> None:
        self._set_training(True)

    def eval(self) -> None:
        self._set_training(False)
        self._set_multiplier(1.0)

    def _set_multiplier(self, multiplier: float) -> None:
        """The network's strength, which each dataset may choose for its batches."""
        if multiplier == self._multiplier:
            return
        if not hasattr(self.network, "set_multiplier"):
            wishes = "network_multiplier, diff_output_preservation and prior_prediction"
            raise UserError(f"network_module: {self._options.network_module} has no set_multiplier, which {wishes} need; remove them")
        self.network.set_multiplier(multiplier)
        self._multiplier = multiplier

    @contextmanager
    def base(self) -> Iterator[None]:
        """The network without effect."""
        multiplier = self._multiplier
        self._set_multiplier(0.0)
        try:
            yield
        finally:
            self._set_multiplier(multiplier)

    def _set_training(self, training: bool) -> None:
        self._training = training
        self.network.train(training)
        for module in self._checkpointed:
            module.training = training

    def before_batch(self, batch: Batch) -> None:
        self._set_multiplier(batch.network_multiplier)
        if not self._training:  # the network module counts what it is trained on
            return
        if batch.place.epoch != self._epoch:
            self._epoch = batch.place.epoch
            self.network.on_epoch_start(self._text_encoder, self._unet)
        if hasattr(self.network, "on_step_start"):
            self.network.on_step_start(self._text_encoder, self._unet)

    def after_step(self) -> dict[str, float]:
        limit = self._options.scale_weight_norms
        if limit and hasattr(self.network, "apply_max_norm_regularization"):
            count, mean, largest = self.network.apply_max_norm_regularization(limit, next(self._unet.parameters()).device)
            norms = {"max_norm/keys_scaled": count, "max_norm/max_key_norm": largest, "norm/avg_key_norm": mean}
        else:
            norms = self._norms_of_the_network()
        return {tag: float(norm) for tag, norm in norms.items()}

    def _norms_of_the_network(self) -> dict[str, Any]:
        """What the network measures by itself, if it does."""
        if hasattr(self.network, "update_norms"):
            self.network.update_norms()
        measured = {}
        for tag, name in (("norm/avg_key_norm", "weight_norms"), ("norm/avg_combined_norm", "combined_weight_norms")):
            norms = getattr(self.network, name)() if hasattr(self.network, name) else None
            if norms is not None:
                measured[tag] = norms.mean()
        return measured

    def has_nan(self) -> bool:
        return bool(not_finite(self.network, None))

    def write(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        spoilt = not_finite(self.network, dtype)
        if spoilt:
            kind = f" as {str(dtype).removeprefix('torch.')}" if dtype else ""
            raise NotFiniteWeights(f"{len(spoilt)} trained tensors are not finite{kind}, first {spoilt[0]}; nothing was written")
        self.network.save_weights(str(path), dtype, dict(metadata))
