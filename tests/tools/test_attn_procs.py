"""tools/attn_procs.py: the same LoRA under the names of attention processors, as a program reads it that knows only Diffusers."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from library.config.tool import read_tool_options
from library.errors import UserError
from networks.lora import create_network
from tests.tiny_models import tiny_sd1_parts
from tools.attn_procs import AttnProcsOptions, attn_procs, place_of

NAMES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


def converted(network: Path, folder: Path) -> Path:
    attn_procs(read_tool_options(AttnProcsOptions, [str(network), "--output", str(folder)]))
    return folder


def answer(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    latents, words = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, 32)))
    with torch.no_grad():
        return unet(latents, torch.tensor([10]), words).sample


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A LoRA of rank 4 and alpha 2 that does something, as a file, and what the U-Net says with it."""
    parts = tiny_sd1_parts()
    network = create_network(1.0, 4, 2.0, parts.vae, parts.text_encoders, parts.unet, attn_only="true")
    network.apply_to(parts.text_encoders, parts.unet, apply_text_encoder=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors", answer(parts.unet)


@pytest.mark.parametrize("name", NAMES)
def test_diffusers_computes_the_same(trained: tuple[Path, torch.Tensor], tmp_path: Path, name: str) -> None:
    network, wanted = trained
    path = converted(network, tmp_path / "attn_procs") / name
    weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    unet = tiny_sd1_parts().unet
    assert isinstance(unet, UNet2DConditionModel)
    assert not torch.allclose(answer(unet), wanted, atol=1e-3)
    unet.load_lora_adapter(weights, prefix=None)
    torch.testing.assert_close(answer(unet), wanted, rtol=1e-4, atol=1e-5)


def test_every_attention_is_there_under_its_old_name(trained: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    weights = load_file(converted(trained[0], tmp_path / "out") / NAMES[0])
    unet = tiny_sd1_parts().unet
    wanted = {
        f"{processor}.to_{projection}_lora.{side}.weight"
        for processor in unet.attn_processors
        for projection in ("q", "k", "v", "out")
        for side in ("down", "up")
    }
    assert weights.keys() == wanted


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0",
         "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora"),
        ("lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_v",
         "up_blocks.3.attentions.2.transformer_blocks.0.attn2.processor.to_v_lora"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", None),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", None),
    ],
)  # fmt: skip
def test_names(name: str, place: str | None) -> None:
    assert place_of(name) == place


def test_what_has_other_layers_is_refused(tmp_path: Path) -> None:
    parts = tiny_sd1_parts()
    network = create_network(1.0, 2, 2.0, parts.vae, parts.text_encoders, parts.unet)
    network.apply_to(parts.text_encoders, parts.unet)
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(UserError, match="adapters of other layers.*attn_only=true"):
        converted(tmp_path / "whole.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="there is no LoRA in it"):
        converted(tmp_path / "other.safetensors", tmp_path / "out")
