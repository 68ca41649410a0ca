"""Finding network modules and reading their arguments; nothing here needs a model."""
from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from library.config.options import NetworkOptions
from library.errors import UserError
from library.methods.network_module import (
    accepted_keywords,
    check_network,
    import_network_module,
    network_arguments,
    takes_positional,
)

ADAPTER = "lora_unet_mid_block_attentions_0_proj_in"


def test_arguments_are_strings_and_the_dropout_is_added():
    options = NetworkOptions(network_args=("conv_dim=4", "preset=a=b.toml"), network_dropout=0.1)
    assert network_arguments(options) == {"conv_dim": "4", "preset": "a=b.toml", "dropout": 0.1}
    assert network_arguments(NetworkOptions(network_args=("dropout=0.3",), network_dropout=0.1)) == {"dropout": "0.3"}
    assert network_arguments(NetworkOptions(dim_from_weights=True)) == {}


@pytest.mark.parametrize("arguments", [("conv_dim",), ("=4",), ("conv dim=4",), ("conv_dim=4", "conv_dim=8")])
def test_arguments_that_are_none(arguments):
    with pytest.raises(UserError, match="network_args"):
        network_arguments(NetworkOptions(network_args=arguments))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (None, 'network_module = "networks.lora"'),
        ("networks.loar", 'did you mean "networks.lora"'),
        ("networks/lora.py", "name of a Python module"),
        ("networks.lora.network", "no such module"),
        ("quite_something_else", "no such module"),
    ],
)
def test_modules_that_are_not_there(name, words):
    with pytest.raises(UserError, match=words):
        import_network_module(name)


def test_a_missing_lycoris_says_how_to_install_it(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "lycoris"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Hider("lycoris"), *sys.meta_path])
    with pytest.raises(UserError, match="pip install lycoris-lora"):
        import_network_module("lycoris.kohya")


class Hider:
    """Makes a package look as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_installed_at_all", "needs the package not_installed_at_all.*pip install not_installed_at_all"),
        ("from math import cosinus", "cannot be imported.*cosinus"),
        ("x = 1", "has no function create_network"),
    ],
)
def test_modules_that_do_not_work(tmp_path, monkeypatch, source, words):
    name = f"own_network_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=words):
        check_network(NetworkOptions(network_module=name), "sd_v1")


def test_all_mistakes_about_the_network_at_once(tmp_path):
    options = NetworkOptions(
        network_module="networks.lora",
        network_args=("conv_dmi=4",),
        dim_from_weights=True,
        base_weights=(str(tmp_path / "absent.safetensors"),),
        base_weights_multiplier=(1.0, 0.5),
    )
    with pytest.raises(UserError) as caught:
        check_network(options, "sd_v1")
    text = "\n".join(caught.value.messages)
    assert len(caught.value.messages) == 4
    assert all(word in text for word in ("conv_dmi", "dim_from_weights needs", "absent.safetensors", "2 values for 1 files"))


def test_a_good_network_passes(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({f"{ADAPTER}.lora_down.weight": torch.zeros(4, 8), f"{ADAPTER}.lora_up.weight": torch.zeros(8, 4)}, file)
    check_network(NetworkOptions(network_module="networks.lora", network_args=("conv_dim=4",), network_weights=str(file)), "sd_v1")


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        ({"something": (2, 2)}, {}, "no LoRA in it, but 1 \\(something\\)"),
        ({f"{ADAPTER}.lora_down.weight": (8, 2)}, {}, "its rank is 8, but network_dim is 4; set network_dim = 8"),
        ({f"{ADAPTER}.lora_down.weight": (8, 2)}, {"network_dim": 16}, "its rank is 8, but network_dim is 16"),
        ({f"{ADAPTER}.lora_down.weight": (8, 2)}, {"network_dim": 8}, None),
        ({f"{ADAPTER}.lora_down.weight": (8, 2)}, {"dim_from_weights": True}, None),
        ({f"{ADAPTER}.lora_down.weight": (8, 2)}, {"network_args": (f"block_dims={','.join(['8'] * 25)}",)}, None),
        ({f"{ADAPTER}.lora_down.weight": (4, 2), "lora_unet_conv.lora_down.weight": (8, 2, 3, 3)}, {}, None),
    ],
)
def test_the_header_of_network_weights(shapes, options, words, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    settings = NetworkOptions(network_module="networks.lora", network_weights=str(file), **options)
    with pytest.raises(UserError, match=words) if words else nullcontext():
        check_network(settings, "sd_v1")


def test_calls_follow_the_signature():
    def two(a, b): ...
    def three(a, b, c=None): ...
    def any_keyword(a, **keywords): ...

    assert not takes_positional(two, 3) and takes_positional(three, 2) and takes_positional(three, 3)
    assert accepted_keywords(two, b=1, c=2) == {"b": 1}
    assert accepted_keywords(any_keyword, c=2) == {"c": 2}
