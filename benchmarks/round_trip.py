"""Diffusers folder -> single file -> Diffusers folder at full size in fp16: SHA-256 of every tensor, and what each step holds in memory.

    python benchmarks/round_trip.py --output /tmp/round_trip --family sdxl

Each step is a process of its own. The disk must have room for two copies of the model: 14 GB for sdxl, 5 GB for sd_v1 and sd_v2.
Exit code 1 if a tensor changed, or if loading and saving held more than 1.25 times the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from benchmarks.memory import MOST_OF_FILE, ROOT, memory
from library.config.options import ModelOptions
from library.families.detect import identify
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from tests.full_models import full_parts

FAMILIES = {"sd_v1": StableDiffusion(), "sd_v2": StableDiffusion(name="sd_v2"), "sdxl": StableDiffusionXL()}
FORMS = {"made": "diffusers_safetensors", "single.safetensors": "safetensors", "back": "diffusers_safetensors"}  # in this order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--step", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        print(json.dumps(converted(*chosen.step)))
        return
    figures = round_trip(chosen.family, chosen.output)
    (chosen.output / f"round_trip_{chosen.family}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    sys.exit(0 if figures["holds"] else 1)


def round_trip(family: str, output: Path) -> dict[str, object]:
    """All steps and what came of them. Each form is deleted once the next one is there."""
    output.mkdir(parents=True)
    made, single, back = (output / name for name in FORMS)
    make(family, made)
    before = hashes(made)
    size = sum(file.stat().st_size for file in made.rglob("*.safetensors"))
    steps = []
    for source, target in ((made, single), (single, back)):
        command = [sys.executable, __file__, "--output", str(output), "--family", family, "--step", str(source), str(target)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        steps.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(source) if source.is_dir() else source.unlink()
    after = hashes(back)
    shutil.rmtree(back)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    ratios = [round(step["grown"] / size, 3) for step in steps]
    return {
        "tensors": len(before), "bytes": size, "changed": changed, "ratios": ratios, "seconds": [step["seconds"] for step in steps],
        "holds": not changed and max(ratios) <= MOST_OF_FILE,
    }  # fmt: skip


def make(family: str, folder: Path) -> None:
    """A folder with numbers of every bit pattern, those that are no numbers too."""
    parts = full_parts(family)
    generator = np.random.default_rng(0)
    for module in (parts.unet, *parts.text_encoders, parts.vae):
        for tensor in module.half().to_empty(device="cpu").state_dict().values():  # type: ignore[attr-defined]
            bits = generator.integers(2**64, size=-(-tensor.numel() // 4), dtype=np.uint64).view(np.float16)
            tensor.copy_(torch.from_numpy(bits[: tensor.numel()]).view(tensor.shape))
    FAMILIES[family].save(parts, folder, "diffusers_safetensors", None, {})  # type: ignore[attr-defined]


def converted(source: Path, target: Path) -> dict[str, float]:
    """Loads, and saves in the other form; how long that takes, and by how much this process grows."""
    started, before = time.monotonic(), memory("VmRSS")
    options = ModelOptions(pretrained_model_name_or_path=str(source))
    family = identify(options)
    family.save(family.load(options, torch.float16, "cpu"), target, FORMS[target.name], None, {})
    return {"seconds": round(time.monotonic() - started, 1), "grown": memory("VmHWM") - before}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a folder, by part and name; one tensor at a time."""
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dictionary
                tensor = file.get_tensor(name)
                content = f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.flatten().view(torch.uint8).numpy().tobytes()
                found[f"{path.parent.name}/{name}"] = hashlib.sha256(content).hexdigest()
    return found


if __name__ == "__main__":
    main()
