"""Mistakes in the base model and in the files of networks."""
from __future__ import annotations

from tests.bad_input import bad_files
from tests.bad_input.bad_files import Copied
from tests.bad_input.table import Case

MODEL = "pretrained_model_name_or_path"
WHOLE, PICKLE = "single.safetensors", "single.ckpt"


def model(name: str, expected: tuple[str, ...], file: str, content: object, **more: object) -> Case:
    """A base model that is this file."""
    return Case(name, (f"{{here}}/{file}", *expected), {MODEL: f"{{here}}/{file}", **more}, {file: content})  # type: ignore[arg-type]


BASE_MODELS = [
    Case("model missing", (MODEL, "{here}/no.safetensors", "no such file"), config={MODEL: "{here}/no.safetensors"}),
    Case("model of an id that cannot be had", (MODEL, "nobody/nothing", "hub"), config={MODEL: "nobody/nothing"}),
    model("model is empty", ("0 bytes",), "a.safetensors", b""),
    model("malicious pickle", ("refused", "could run code"), "a.ckpt", bad_files.malicious_pickle),
    model("malicious checkpoint", ("refused", "mkdir"), "a.ckpt", bad_files.malicious_checkpoint),
    model("malicious pickle with a wrong name", ("pickle",), "a.safetensors", bad_files.malicious_pickle),
    model("truncated model", ("cut off",), "a.safetensors", Copied(WHOLE, bad_files.truncated)),
    model("truncated pickle", ("cut off",), "a.ckpt", Copied(PICKLE, bad_files.truncated)),
    model("model truncated in its header", ("cut off", "header"), "a.safetensors", Copied(WHOLE, bad_files.first_bytes(1000))),
    model("model is a web page", ("web page",), "a.safetensors", "<!DOCTYPE html>"),
    model("model is a picture", ("must end in",), "a.png", bad_files.picture),
    model("model of another architecture", ("FLUX", "cannot be trained; give a Stable Diffusion 1.x"), "a.safetensors", bad_files.FLUX),
    model("model that is not whole", ("unet of Stable Diffusion XL is missing or not complete",), "a.safetensors", bad_files.SDXL),
    model("model is a LoRA", ("a LoRA",), "a.safetensors", bad_files.weights(*bad_files.LORA_NAMES)),
    model(
        "model is a VAE", ("a VAE alone", "option vae"),
        "a.safetensors", bad_files.weights("encoder.down.0.block.0.conv1.weight"),
    ),
    model(
        "model is a VAE of Diffusers", ("a VAE alone", "option vae"),
        "a.safetensors", bad_files.weights("encoder.down_blocks.0.conv.weight", "decoder.up_blocks.0.conv.weight"),
    ),
    Case("folder is no model", ("{here}/data", "model_index.json"), config={MODEL: "{here}/data"}),
    model(
        "folder lacks weights", ("missing", "vae/ weights"),
        "model", Copied("diffusers", bad_files.without("vae/diffusion_pytorch_model.safetensors")),
    ),
    model("folder lacks a part", ("missing", "unet/config.json"), "model", Copied("diffusers", bad_files.without("unet"))),
    model(
        "part is truncated", ("unet/diffusion_pytorch_model.safetensors", "cut off"),
        "model", Copied("diffusers", bad_files.within("unet/diffusion_pytorch_model.safetensors", bad_files.truncated)),
    ),
    Case("not a v2 model", ("{models}/diffusers", "v2 = true", "Stable Diffusion 1.x"), config={"v2": True}),
    Case("VAE missing", ("vae", "{here}/no.pt", "no such file"), config={"vae": "{here}/no.pt"}),
    Case(
        "VAE is something else", ("vae", "{here}/a.safetensors", "no Stable Diffusion VAE"),
        config={"vae": "{here}/a.safetensors"}, files={"a.safetensors": bad_files.SDXL},
    ),
    Case(
        "VAE is malicious", ("{here}/a.pt", "refused"),
        config={"vae": "{here}/a.pt"}, files={"a.pt": bad_files.malicious_pickle},
    ),
    Case("more layers skipped than there are", ("clip_skip", "2 layers"), config={"clip_skip": 3}),
]  # fmt: skip


def network(name: str, expected: tuple[str, ...], content: object, file: str = "a.safetensors", **more: object) -> Case:
    """A run that starts from this file."""
    return Case(name, (f"{{here}}/{file}", *expected), {"network_weights": f"{{here}}/{file}", **more}, {file: content})  # type: ignore[arg-type]


LORA = bad_files.weights(*bad_files.LORA_NAMES)  # of rank 2 by its first tensor
NETWORKS = [
    Case(
        "network module missing", ("network_module", '"networks.lara"', "did you mean"),
        config={"network_module": "networks.lara"},
    ),
    Case("network module is something else", ("network_module", '"json"', "create_network"), config={"network_module": "json"}),
    Case(
        "network module is a file", ("network_module", '"networks/lora.py"', "Python module"),
        config={"network_module": "networks/lora.py"},
    ),
    Case(
        "unknown network argument", ("network_args", "conv_dims", "did you mean", "conv_dim"),
        config={"network_args": ["conv_dims=4"]},
    ),
    Case(
        "network argument of a wrong type", ("network_args", "conv_dim=four", "whole number"),
        config={"network_args": ["conv_dim=four"]},
    ),
    Case("network argument without a value", ("network_args", "conv_dim", "key=value"), config={"network_args": ["conv_dim"]}),
    Case(
        "network weights missing", ("network_weights", "{here}/no.safetensors", "no such file"),
        config={"network_weights": "{here}/no.safetensors"},
    ),
    network("network weights truncated", ("network_weights", "cut off",), bad_files.truncated_weights),
    network("network weights are malicious", ("refused",), bad_files.malicious_pickle, "a.pt"),
    network("network weights of another rank", ("network_dim is 4", "network_dim = 2"), LORA, network_dim=4),
    network("network weights are a model", ("no LoRA",), Copied(WHOLE)),
    network("shapes from something else", ("LoRA",), Copied(WHOLE), dim_from_weights=True, network_dim=None),
    Case(
        "base weights are something else", ("{here}/a.safetensors", "LoRA"),
        config={"base_weights": ["{here}/a.safetensors"]}, files={"a.safetensors": bad_files.SDXL},
    ),
    Case(
        "more multipliers than files", ("base_weights_multiplier",),
        config={"base_weights": ["{here}/a.safetensors"], "base_weights_multiplier": [1.0, 1.0]},
        files={"a.safetensors": LORA},
    ),
]  # fmt: skip

CASES = [*BASE_MODELS, *NETWORKS]
