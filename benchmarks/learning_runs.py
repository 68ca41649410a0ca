"""The trainings that learning.py measures: real runs of the project's scripts, by the configs in examples/ with a few values changed."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.drawing import Learned
from library.config.dump import toml_value
from library.config.options import EmbeddingOptions
from library.config.scripts import SCRIPTS
from library.config.text_files import read_toml

ROOT = Path(__file__).resolve().parent.parent
CLASS_WORD = "frog"
CLASS_PICTURES = 16  # as many as there are of our frog
# Of a config, what only shows or keeps more files.
LEFT_OUT = ("sample_", "ema_samples", "save_every", "save_last", "save_state", "logging_dir", "log_", "seed", "output_")


@dataclass(frozen=True)
class Training:
    """A run of a script by an example."""

    name: str  # of its folder and its files
    script: str
    example: str
    changes: dict[str, Any] = field(default_factory=dict)
    class_pictures: bool = False  # drawn by the base before training, and shown with ours


@dataclass(frozen=True)
class Trained:
    learned: Learned
    word: str | None  # that was taught to the text encoder
    seconds: float  # of the whole run, as the clock on the wall says


class TrainingRuns:
    """Trains, unless the output folder holds the result of the same config already."""

    def __init__(self, examples: Path, output: Path, changes: dict[str, Any]):
        self._examples, self._output, self._changes = examples, output, changes

    def config(self, training: Training) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in read_toml(self._examples / training.example, "config file").items():
            flat |= value if isinstance(value, dict) else {name: value}  # sections are only for the reader
        kept = {name: value for name, value in flat.items() if not name.startswith(LEFT_OUT)}
        config = kept | training.changes | self._changes
        if training.class_pictures:  # half of what is seen: twice the steps, so that our frog is seen as often as without
            for steps in ("max_train_steps", "stop_text_encoder_training"):
                config |= {steps: 2 * config[steps]} if steps in config else {}
        return config

    def run(self, training: Training, seed: int) -> Trained:
        folder = self._output / f"{training.name}-{seed}"
        config = self.config(training) | {"seed": seed, "output_dir": str(folder), "output_name": training.name}
        if training.class_pictures:
            drawn = folder / "class_pictures" / f"1_{CLASS_WORD}"
            drawn.mkdir(parents=True, exist_ok=True)
            config |= {"reg_data_dir": str(drawn.parent), "num_class_images": CLASS_PICTURES, "class_prompt": CLASS_WORD}
        seconds = self._train(training.script, folder, "".join(f"{name} = {toml_value(value)}\n" for name, value in config.items()))
        return Trained(learned(training, config, folder), config.get("token_string"), seconds)

    def _train(self, script: str, folder: Path, config: str) -> float:
        config_file, seconds_file = folder / "run.toml", folder / "seconds.txt"
        if seconds_file.exists() and config_file.read_text(encoding="utf-8") == config:
            return float(seconds_file.read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        seconds_file.unlink(missing_ok=True)
        config_file.write_text(config, encoding="utf-8")
        print(f"training {folder.name}", flush=True)
        started = time.monotonic()
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            command = [sys.executable, script, "--config_file", str(config_file)]
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=True)
        seconds = time.monotonic() - started
        seconds_file.write_text(f"{seconds:.1f}\n", encoding="utf-8")
        return seconds


def learned(training: Training, config: dict[str, Any], folder: Path) -> Learned:
    """What the run has left, by the kind of its script."""
    script, name = SCRIPTS[training.script], training.name
    if script.method == "full":
        return Learned(model=folder / name)
    if script.method == "adapter":
        words = folder / f"{name}-words.safetensors"
        return Learned(network=folder / f"{name}.safetensors", word=_word(config, words) if "token_string" in config else None)
    return Learned(word=_word(config, folder / f"{name}.pt"), per_layer=script.per_layer)


def _word(config: dict[str, Any], weights: Path) -> EmbeddingOptions:
    known = {option.name for option in fields(EmbeddingOptions)}
    return EmbeddingOptions(**{name: value for name, value in config.items() if name in known} | {"weights": str(weights)})
