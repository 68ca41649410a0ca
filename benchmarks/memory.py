"""What a training and loading hold in memory, against the least that could do: full-size shapes with random weights, on the CPU.

    python benchmarks/memory.py --output /tmp/memory            # SD 1.5: a LoRA at 256 pixels, and each form of checkpoint
    python benchmarks/memory.py --output /tmp/memory --sdxl     # loading SDXL, 7 GB

Each figure is the peak of resident memory of a process of its own. Exit code 1 where a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from library.config.load import load_settings
from library.config.options import ModelOptions
from library.families.detect import identify
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.train.plan import make_plan
from library.train.run import train_by_plan
from library.train.signals import StopRequest
from networks.lora import create_network
from tests.full_models import full_parts

ROOT = Path(__file__).resolve().parent.parent

MOST_OF_BARE = 1.15  # of the peak of a bare training step
MOST_OF_FILE = 1.25  # of the size of a checkpoint; two copies would be 2
SIDE = 256  # pixels
STEPS = 2
RANK = 16
FORMS = {"folder": ("diffusers_safetensors", "folder"), "safetensors": ("safetensors", "model.safetensors"), "ckpt": ("ckpt", "model.ckpt")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sdxl", action="store_true")
    parser.add_argument("--role", choices=("write", "train", "bare", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    family = "sdxl" if options.sdxl else "sd_v1"
    if options.role:
        print(json.dumps(_played(options.role, options.output, family, options.model)), flush=True)
        return
    figures = measure(options.output, family)
    (options.output / f"memory_{family}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    sys.exit(0 if figures["holds"] else 1)


def measure(folder: Path, family: str) -> dict[str, Any]:
    """All figures, in bytes; every one in a fresh process."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"machine": platform.platform(), "torch": torch.__version__, "threads": os.environ.get("OMP_NUM_THREADS")}
    forms = FORMS if family == "sd_v1" else {"safetensors": FORMS["safetensors"]}
    for form, (_, name) in forms.items():
        path = folder / family / name
        if not path.exists():
            _fresh(folder, family, "write", path)
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*.safetensors")))
        grown = _fresh(folder, family, "load", path)["grown"]
        figures[f"load {form}"] = {"file": size, "grown": grown, "ratio": round(grown / size, 3)}
    holds = all(figures[f"load {form}"]["ratio"] <= MOST_OF_FILE for form in forms)
    if family == "sd_v1":
        model = folder / family / FORMS["safetensors"][1]
        ours, bare = (_fresh(folder, family, role, model)["peak"] for role in ("train", "bare"))
        figures["train"] = {"ours": ours, "bare": bare, "ratio": round(ours / bare, 3)}
        holds = holds and figures["train"]["ratio"] <= MOST_OF_BARE
    return figures | {"holds": holds}


def _fresh(folder: Path, family: str, role: str, model: Path) -> dict[str, int]:
    """What a process of its own says after playing a role."""
    flags = ["--sdxl"] if family == "sdxl" else []
    command = [sys.executable, __file__, "--output", str(folder), "--role", role, "--model", str(model), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def _played(role: str, folder: Path, family: str, model: Path) -> dict[str, int]:
    if role == "write":
        write_model(family, model)
    elif role == "load":
        return {"grown": load_model(model)}
    elif role == "train":
        train_network(folder, model)
    else:
        train_barely()
    return {"peak": memory("VmHWM")}


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def write_model(family: str, path: Path) -> None:
    """Random weights in fp16, in the form that the name says."""
    parts = full_parts(family)
    for module in (parts.unet, *parts.text_encoders, parts.vae):
        fill(module.half())
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = next(layout for layout, name in FORMS.values() if name == path.name)
    made = StableDiffusionXL() if family == "sdxl" else StableDiffusion()
    made.save(parts, path, layout, None, {})  # type: ignore[arg-type]


def fill(module: torch.nn.Module) -> None:
    """Memory for a module that has none, with numbers that look random: a block of them, over and over, for drawing takes minutes."""
    module.to_empty(device="cpu").eval().requires_grad_(False)
    block = torch.randn(2**20, generator=torch.Generator().manual_seed(0)) * 0.02
    for parameter in module.parameters():
        for part in parameter.view(-1).split(len(block)):
            part.copy_(block[: len(part)])
    for name, buffer in module.named_buffers():
        buffer.copy_(torch.arange(buffer.numel()).view_as(buffer) if "position_ids" in name else torch.zeros_like(buffer))


def load_model(path: Path) -> int:
    """By how much the process grows at most while the model is loaded. Libraries, which are no part of it, are there by now."""
    options = ModelOptions(pretrained_model_name_or_path=str(path))
    before = memory("VmRSS")
    parts = identify(options).load(options, torch.float16, "cpu")
    assert parts.unet is not None
    return memory("VmHWM") - before


def train_network(folder: Path, model: Path) -> None:
    """A run of train_network.py, as it is."""
    pictures = folder / "pictures" / "1_noise"
    pictures.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((SIDE, SIDE), 80).convert("RGB").save(pictures / "0.png")
    values = {
        "pretrained_model_name_or_path": model, "train_data_dir": pictures.parent, "output_dir": folder / "out", "output_name": "lora",
        "resolution": SIDE, "max_train_steps": STEPS, "network_module": "networks.lora", "network_dim": RANK, "seed": 1,
        "max_data_loader_n_workers": 0,
    }  # fmt: skip
    settings = load_settings("train_network.py", [word for name, value in values.items() for word in (f"--{name}", str(value))])
    assert settings is not None
    with redirect_stdout(sys.stderr):
        assert train_by_plan(make_plan(settings), StopRequest()) == 0


def train_barely() -> None:
    """The same modules and the same LoRA: forward, backward and step, with nothing around them."""
    parts = full_parts("sd_v1")
    unet, vae, (encoder,) = parts.unet, parts.vae, parts.text_encoders
    for module in (unet, vae, encoder):
        fill(module)
    network = create_network(1.0, RANK, 1, vae, encoder, unet)
    network.apply_to(encoder, unet)
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    schedule = DDPMScheduler()
    for _ in range(STEPS):
        with torch.no_grad():
            latents = vae.encode(torch.rand(1, 3, SIDE, SIDE)).latent_dist.sample() * 0.18215  # type: ignore[operator]
        noise, timestep = torch.randn_like(latents), torch.tensor([500])
        states = encoder(torch.randint(0, 49407, (1, 77)))
        prediction = unet(schedule.add_noise(latents, noise, timestep), timestep, states).sample
        torch.nn.functional.mse_loss(prediction, noise).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
