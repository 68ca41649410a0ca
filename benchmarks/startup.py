"""What a run needs before its first step: train_network.py against a script that imports and loads the same, and no more.

    python benchmarks/startup.py --output /tmp/startup

Plain `python`, 20 pictures, latents cached on disk; both commands alternate. Exit code 1 above 1.3.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MOST = 1.3
PICTURES = 20
# What any training script has to import and load, with the libraries' own loaders.
REFERENCE = """
import sys
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

base = sys.argv[1]
accelerator = Accelerator(cpu=not torch.cuda.is_available())
parts = [loader.from_pretrained(base, subfolder=folder) for loader, folder in (
    (UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder"), (CLIPTokenizer, "tokenizer"),
    (DDPMScheduler, "scheduler"))]
for part in parts[:3]:
    part.to(accelerator.device, torch.float32)
"""


def copy_pictures(source: Path, folder: Path) -> Path:
    """A --train_data_dir with exactly 20 pictures, those of `source` as often as it takes."""
    pictures = sorted(source.rglob("*.png"))
    target = folder / "1_sls frog"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        shutil.copyfile(pictures[number % len(pictures)], target / f"{number:02}.png")
    return folder


def time_reference(base: Path) -> float:
    """Seconds from the command to its end."""
    started = time.time()
    subprocess.run([sys.executable, "-c", REFERENCE, str(base)], cwd=ROOT, check=True, capture_output=True)
    return time.time() - started


def time_training(base: Path, pictures: Path, output: Path) -> float:
    """Seconds from the command to the end of the first step, which is later than its beginning."""
    shutil.rmtree(output, ignore_errors=True)
    flags = {
        "pretrained_model_name_or_path": base, "train_data_dir": pictures, "output_dir": output, "output_name": "startup",
        "resolution": 64, "train_batch_size": 4, "network_module": "networks.lora", "network_dim": 8, "learning_rate": 1e-4,
        "max_train_steps": 1, "seed": 1,
    }  # fmt: skip
    argv = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "train_network.py", *argv, "--cache_latents", "--cache_latents_to_disk"]
    started = time.time()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (events_file,) = output.glob("startup-runs/*/events.jsonl")
    events = map(json.loads, events_file.read_text(encoding="utf-8").splitlines())
    return next(event["time"] for event in events if event["event"] == "step") - started


def measure(base: Path, pictures: Path, output: Path, rounds: int) -> dict[str, Any]:
    """Both commands in turn; the first round, which fills the caches, does not count."""
    found: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        found.append((time_training(base, pictures, output / "run"), time_reference(base)))
        print(f"first step {found[-1][0]:.2f} s, reference {found[-1][1]:.2f} s", flush=True)
    training, reference = (median(seconds) for seconds in zip(*found[1:], strict=True))
    return {
        "ratio": training / reference, "first_step_s": training, "reference_s": reference, "counted_rounds": rounds,
        "rounds_s": found,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for what the runs write and for startup.json")
    parser.add_argument("--base", type=Path, default=ROOT / "assets" / "base", help="the embedded base by default")
    parser.add_argument("--pictures", type=Path, default=ROOT / "assets" / "frog", help="a folder with PNG files somewhere below")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    output = options.output.resolve()
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    pictures = copy_pictures(options.pictures, output / "pictures")
    figures = measure(options.base.resolve(), pictures, output, options.rounds) | {"load_before": load_before}
    (output / "startup.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(
        "first step {first_step_s:.2f} s, reference {reference_s:.2f} s, ratio {ratio:.3f}".format_map(figures)
        + f", at most {MOST}"
    )
    return 0 if figures["ratio"] <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
