"""Write a LoRA of a U-Net's attentions as Diffusers' attention processors: what `unet.load_attn_procs` reads.

python tools/attn_procs.py output/model.safetensors --output checkpoints/final/attn_procs
"""
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from torch import Tensor

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.errors import UserError
from networks.lora_weights import projections_of, ranks_and_alphas, read_weights, shorten, write_weights

NAME = "pytorch_lora_weights"
PREFIX = "lora_unet_"
ATTENTION = re.compile(
    PREFIX + r"(?:(?P<side>down|up)_blocks_(?P<block>\d+)|(?P<middle>mid_block))_attentions_(?P<attention>\d+)"
    r"_transformer_blocks_(?P<transformer>\d+)_attn(?P<which>[12])_to_(?P<projection>q|k|v|out)(?:_0)?"
)


@dataclass(frozen=True, kw_only=True)
class AttnProcsOptions:
    """Write a LoRA of a U-Net's attentions as Diffusers' attention processors, as .safetensors and as .bin."""

    network: str = positional("The LoRA: a file that train_network.py wrote with network_args = [\"attn_only=true\"].")
    output: Path = option(Path("attn_procs"), "The folder to write into.")


def attn_procs(options: AttnProcsOptions) -> None:
    weights = processors_of(read_weights(options.network), options.network)
    options.output.mkdir(parents=True, exist_ok=True)
    for extension in (".safetensors", ".bin"):
        path = options.output / f"{NAME}{extension}"
        temporary = path.with_name(f".part-{path.name}")
        write_weights(temporary, weights, None, {"format": "pt"})
        temporary.replace(path)
    print(f"{options.output}: {len(weights) // 2} projections")


def processors_of(weights: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The same LoRA under the names of attention processors, which know no alpha: the strength is in the upper weights."""
    shapes = ranks_and_alphas(weights)
    places = {name: place_of(name) for name in shapes}
    strangers = sorted(name for name, place in places.items() if place is None)
    if strangers or not places:
        found = f"there are adapters of other layers in it: {shorten(strangers)}" if strangers else "there is no LoRA in it"
        raise UserError(f'{file}: {found}; attention processors hold a LoRA that was trained with network_args = ["attn_only=true"] '
                        "and network_train_unet_only = true")  # fmt: skip
    written = {}
    for name, place in places.items():
        rank, alpha = shapes[name]
        adapter = {key: value.flatten(1) for key, value in projections_of(name, weights).items()}
        written[f"{place}.down.weight"] = adapter["lora_down.weight"]
        written[f"{place}.up.weight"] = (adapter["lora_up.weight"].float() * (alpha / rank)).to(adapter["lora_up.weight"].dtype)
    return written


def place_of(name: str) -> str | None:
    """lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_q -> its processor's projection; None: no attention's."""
    found = ATTENTION.fullmatch(name)
    if found is None:
        return None
    block = "mid_block" if found["middle"] else f"{found['side']}_blocks.{found['block']}"
    layer = f"{block}.attentions.{found['attention']}.transformer_blocks.{found['transformer']}.attn{found['which']}"
    return f"{layer}.processor.to_{found['projection']}_lora"


if __name__ == "__main__":
    run_tool(AttnProcsOptions, attn_procs)
