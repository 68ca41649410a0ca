"""What the loop costs: a step of library.train.loop against forward, backward and optimizer step of the same modules.

    python benchmarks/overhead.py --output /tmp/overhead               # the embedded base, batch 4, 64 pixels
    python benchmarks/overhead.py --output /tmp/overhead --sd15        # SD 1.5 shapes, random weights, batch 1, 256 pixels

Both kinds of step alternate within one run, so that a machine that grows slower slows both. Exit code 1 above 1.10.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from library.config.load import load_settings
from library.config.options import ModelOptions, OptimizerOptions
from library.families.clip import TextEncoder, read_captions
from library.families.sd import StableDiffusion
from library.methods.base import Method
from library.optim.optimizers import build_optimizer
from library.train.batch_loss import BatchLoss
from library.train.loop import train
from library.train.plan import Plan, make_plan
from library.train.run import train_by_plan
from library.train.signals import StopRequest
from library.types import Batch, Parts, TextSettings

ROOT = Path(__file__).resolve().parent.parent
MOST = 1.10
WARM_UP_PAIRS = 2


class LargeStableDiffusion(StableDiffusion):
    """SD 1.5's UNet and text encoder with random weights; tokenizer and autoencoder are those of the embedded base."""

    def load(self, options: ModelOptions, dtype: torch.dtype, device: torch.device | str) -> Parts:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        parts = super().load(options, dtype, device)
        unet = UNet2DConditionModel(cross_attention_dim=768)  # the rest of its defaults is SD 1.5's
        text = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        encoder = TextEncoder(CLIPTextModel(text))
        for module in (unet, encoder):
            module.to(device, dtype).eval().requires_grad_(False)
        return Parts(unet, [encoder], parts.tokenizers, parts.vae)


class Duration(NamedTuple):
    """In seconds. Those of the processor hardly depend on what else the machine does, and mean something with one thread only."""

    wall: float
    processor: float


class Clock:
    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def elapsed(self) -> Duration:
        return Duration(time.perf_counter() - self._wall, time.process_time() - self._processor)


class BareStep:
    """Forward, backward and optimizer step on tensors that are there already; how long it took."""

    def __init__(self, batch: Batch, parts: Parts, optimizer: Optimizer):
        assert batch.posterior is not None
        self.unet, self.text_encoder, self.optimizer = parts.unet, parts.text_encoders[0], optimizer
        self.latents, self.noise = torch.randn(2, *batch.posterior.mean.shape)
        self.timesteps = torch.randint(0, 1000, (len(batch.captions),))
        self.token_ids = read_captions(parts.tokenizers[0], batch.captions, TextSettings()).windows[:, 0]

    def __call__(self) -> Duration:
        started = Clock()
        states = self.text_encoder(self.token_ids)
        prediction = self.unet(self.latents, self.timesteps, encoder_hidden_states=states).sample
        mse_loss(prediction, self.noise).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return started.elapsed()


class Alternating:
    """Stands in for the loop: the loop itself, with a bare step after each of its own. `pairs`: in the loop, bare."""

    def __init__(self, options: OptimizerOptions):
        self.options = options
        self.pairs: list[tuple[Duration, Duration]] = []

    def __call__(self, batches: Iterable[Batch], batch_loss: BatchLoss, method: Method, *rest: Any) -> None:
        optimizer = build_optimizer(self.options, method.parameter_groups())
        train(self._interrupted(iter(batches), batch_loss.parts, optimizer), batch_loss, method, *rest)

    def _interrupted(self, batches: Iterator[Batch], parts: Parts, optimizer: Optimizer) -> Iterator[Batch]:
        """The batches. The loop comes back for the next one when all that belongs to a step is done."""
        bare_step = None
        while True:
            started = Clock()
            batch = next(batches, None)
            if batch is None:
                return
            yield batch
            in_loop = started.elapsed()
            bare_step = bare_step or BareStep(batch, parts, optimizer)
            self.pairs.append((in_loop, bare_step()))


def make_the_plan(options: argparse.Namespace, pairs: int) -> Plan:
    """A run as people start it, with latents cached, an event log and TensorBoard."""
    side, batch_size = (256, 1) if options.sd15 else (64, 4)
    flags: dict[str, Any] = {
        "pretrained_model_name_or_path": options.base, "train_data_dir": options.pictures, "resolution": side,
        "train_batch_size": batch_size, "output_dir": options.output, "output_name": "overhead", "seed": 1,
        "network_module": "networks.lora", "network_dim": 8, "learning_rate": 1e-4, "max_train_steps": WARM_UP_PAIRS + pairs,
        "logging_dir": options.output / "logs",
    }  # fmt: skip
    argv = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    settings = load_settings("train_network.py", [*argv, "--cache_latents"])
    assert settings is not None
    plan = make_plan(settings)
    if not options.sd15:
        return plan
    known = {field.name: getattr(plan.family, field.name) for field in fields(StableDiffusion)}
    return replace(plan, family=LargeStableDiffusion(**known))


def figures_of(pairs: list[tuple[Duration, Duration]]) -> dict[str, Any]:
    """Medians of both kinds, and their ratio."""
    in_loop, bare = zip(*pairs[WARM_UP_PAIRS:], strict=True)

    def middle(durations: tuple[Duration, ...], clock: str) -> float:
        return median(getattr(duration, clock) for duration in durations)

    return {
        "ratio": middle(in_loop, "wall") / middle(bare, "wall"),
        "processor_time_ratio": middle(in_loop, "processor") / middle(bare, "processor"),
        "loop_step_s": middle(in_loop, "wall"),
        "bare_step_s": middle(bare, "wall"),
        "counted_pairs": len(bare),
        "threads": torch.get_num_threads(),
        "pairs_s": pairs,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for what the run writes and for the report")
    parser.add_argument("--base", type=Path, default=ROOT / "assets" / "base", help="the embedded base by default")
    parser.add_argument("--pictures", type=Path, default=ROOT / "assets" / "frog", help="a --train_data_dir")
    parser.add_argument("--sd15", action="store_true", help="SD 1.5 shapes instead of the embedded base's; takes 8 GB of memory")
    parser.add_argument("--pairs", type=int, help="how many steps of each kind: 200, with --sd15 8")
    options = parser.parse_args(argv)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    plan = make_the_plan(options, options.pairs or (8 if options.sd15 else 200))
    alternating = Alternating(plan.settings.optimizer)
    with patch("library.train.run.train", alternating):
        train_by_plan("network_train", plan, StopRequest())
    figures = figures_of(alternating.pairs) | {"load_before": load_before}
    path = options.output / ("overhead_sd15.json" if options.sd15 else "overhead.json")
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    line = "loop {loop_step_s:.4f} s, bare {bare_step_s:.4f} s, ratio {ratio:.3f} (of processor time {processor_time_ratio:.3f})"
    print(line.format_map(figures) + f", at most {MOST}")
    return 0 if figures["ratio"] <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
