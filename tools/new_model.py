"""Make a small Stable Diffusion 1.x model with random weights: what fine_tune.py can train from nothing.

python tools/new_model.py work/start --seed 1
"""
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.checkpoint.files import atomic_directory
from library.config.declare import option
from library.config.tool import positional, run_tool
from library.errors import UserError
from library.families.reading import read_vae
from library.families.sd import V1, StableDiffusion, file_parts
from library.families.tokenizers import load_tokenizer
from library.types import Parts

BASE = Path(__file__).resolve().parents[1] / "assets" / "base"
UNET_CONFIG: dict[str, Any] = {  # the tree of Stable Diffusion 1.x, hence the names of its layers, at a hundredth of the size
    "sample_size": 8,
    "block_out_channels": (32, 64, 96, 96),
    "layers_per_block": 2,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,  # in these models the number of heads
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
TEXT_CONFIG = {
    "vocab_size": 49408,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 64,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
# Words that no caption holds keep their first vectors. CLIP's usual 0.02 is a third of what trained words of this width grow to, and
# a text encoder hardly tells vectors as short as that from silence; a LoRA could not teach such a word anything.
WORD_DEVIATION = 0.05


@dataclass(frozen=True, kw_only=True)
class NewModelOptions:
    """Make a small Stable Diffusion 1.x model with random weights, as a folder in Diffusers layout."""

    output: str = positional("Folder to write; it must not be there yet.")
    vae: str = option(
        str(BASE), "The VAE, which is not random: a folder (of a VAE or a whole model), a file or a hub id."
    )
    seed: int = option(1, "Decides the random weights.", least=0)


def new_model(options: NewModelOptions) -> None:
    folder = Path(options.output)
    if folder.exists():
        raise UserError(f"{folder}: this is there already; give a name that is free")
    parts = random_parts(options)
    with atomic_directory(folder) as temporary:
        StableDiffusion().save(parts, temporary, "diffusers_safetensors", None, {})
    print(f"{folder}: {sum(parameter.numel() for parameter in parts.unet.parameters()) / 1e6:.2f} M parameters in the U-Net")


def random_parts(options: NewModelOptions) -> Parts:
    """U-Net and text encoder with random weights, and the VAE, all in float32."""
    import torch

    from library.families.clip import build_text_encoder
    from library.families.diffusers_models import UNet2DConditionModel
    from library.families.loading import load_vae

    vae = load_vae(read_vae(options.vae, file_parts(V1)["vae"]), torch.float32, "cpu", full_precision=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        unet: Any = UNet2DConditionModel(**UNET_CONFIG)
        text_encoder = build_text_encoder(TEXT_CONFIG)
        words: Any = text_encoder.text_model.get_input_embeddings()
        torch.nn.init.normal_(words.weight, std=WORD_DEVIATION)
    return Parts(unet, [text_encoder], [load_tokenizer()], vae)


if __name__ == "__main__":
    run_tool(NewModelOptions, new_model)
