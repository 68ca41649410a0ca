"""Attention processors, read by the `unet.load_attn_procs` of a Diffusers that was there when they were made."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from networks.lora import create_network

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "assets" / "base"
# Loads what it is given, and saves what the U-Net then says.
READER = """
import sys, torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
base, folder, weight_name, given, answer = sys.argv[1:]
unet = UNet2DConditionModel.from_pretrained(base)
unet.load_attn_procs(folder, weight_name=weight_name)
asked = load_file(given)
with torch.no_grad():
    save_file({"sample": unet(asked["latents"], torch.tensor([10]), asked["words"]).sample}, answer)
"""


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"])
def test_the_diffusers_of_that_time_computes_the_same(tmp_path: Path, name: str) -> None:
    unet = UNet2DConditionModel.from_pretrained(BASE / "unet", torch_dtype=torch.float32)
    network = create_network(1.0, 4, 2.0, unet, [], unet, attn_only="true")
    network.apply_to([], unet, apply_text_encoder=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "lora.safetensors")
    command = [sys.executable, str(ROOT / "tools" / "attn_procs.py"), str(tmp_path / "lora.safetensors"), "--output", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    given = {"latents": torch.randn(1, 4, 8, 8, generator=generator), "words": torch.randn(1, 77, 64, generator=generator)}
    save_file(given, tmp_path / "given.safetensors")
    reader = [os.environ["OLD_DIFFUSERS_PYTHON"], "-c", READER, str(BASE / "unet"), str(tmp_path / "out"), name]
    subprocess.run([*reader, str(tmp_path / "given.safetensors"), str(tmp_path / "answer.safetensors")], check=True)
    with torch.no_grad():
        wanted = unet(given["latents"], torch.tensor([10]), given["words"]).sample
    torch.testing.assert_close(load_file(tmp_path / "answer.safetensors")["sample"], wanted, rtol=1e-3, atol=1e-4)
