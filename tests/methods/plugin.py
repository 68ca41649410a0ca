"""A network module as somebody else might write one: it notes what it is called with."""
from __future__ import annotations

import torch
from torch import nn

calls: list[tuple] = []


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))

    def _note(self, name, *values):
        calls.append((name, *values))

    def prepare_network(self, args):
        self._note("prepare_network", args.network_dim, args.learning_rate)

    def apply_to(self, text_encoder, unet, apply_text_encoder, apply_unet):
        self._note("apply_to", apply_text_encoder, apply_unet)

    def load_weights(self, file):
        self._note("load_weights", file)

    def enable_gradient_checkpointing(self):
        self._note("enable_gradient_checkpointing")

    def prepare_optimizer_params(self, text_encoder_lr, unet_lr):
        self._note("prepare_optimizer_params", text_encoder_lr, unet_lr)
        return [{"params": self.parameters(), "weight_decay": 0.5}]

    def prepare_grad_etc(self, text_encoder, unet):
        self._note("prepare_grad_etc")
        self.requires_grad_(True)

    def on_epoch_start(self, text_encoder, unet):
        self._note("on_epoch_start")

    def on_step_start(self, text_encoder, unet):
        self._note("on_step_start")

    def update_norms(self):
        self._note("update_norms")

    def weight_norms(self):
        return torch.tensor([1.0, 3.0])

    def combined_weight_norms(self):
        return None

    def save_weights(self, file, dtype, metadata):
        self._note("save_weights", file, dtype, metadata)


class FaultyNetwork(Network):
    def prepare_optimizer_params(self, text_encoder_lr, unet_lr, learning_rate):
        raise TypeError("a mistake inside the plug-in")


def create_network(multiplier, network_dim, network_alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs):
    calls.append(("create_network", multiplier, network_dim, network_alpha, type(text_encoder).__name__, neuron_dropout, kwargs))
    kind = kwargs.get("kind")
    return None if kind == "none" else FaultyNetwork() if kind == "faulty" else Network()


def create_network_from_weights(multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False):
    calls.append(("create_network_from_weights", multiplier, file, for_inference))
    return Network(), {}
