"""The trainings that learning.py compares: real runs of train_network.py, from the demo's config with a few values changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.drawing import Painter
from library.config.dump import toml_value
from library.config.text_files import read_toml

ROOT = Path(__file__).resolve().parent.parent
CLASS_WORD = "frog"
REGULARISATION_PICTURES = 16
# Of the config, what only shows or keeps more files.
LEFT_OUT = ("sample_", "save_every", "save_last", "save_state", "logging_dir", "log_", "seed", "output_")


class TrainingRuns:
    """Weights of runs by kind and seed. Runs that the output folder already holds with the same config are not repeated."""

    def __init__(self, config_file: Path, output: Path, changes: dict[str, Any]):
        flat: dict[str, Any] = {}
        for name, value in read_toml(config_file, "config file").items():
            flat |= value if isinstance(value, dict) else {name: value}  # sections are only for the reader
        self.config = {name: value for name, value in flat.items() if not name.startswith(LEFT_OUT)} | changes
        self.base = ROOT / self.config["pretrained_model_name_or_path"]
        self.pictures = ROOT / self.config["train_data_dir"]
        self.output = output

    def weights(self, kind: str, seed: int, **changes: Any) -> Path:
        """Train, unless it has been done; the file of weights."""
        folder = self.output / f"{kind}-{seed}"
        weights, config_file = folder / f"{kind}.safetensors", folder / "run.toml"
        config = self.config | changes | {"seed": seed, "output_dir": str(folder), "output_name": kind}
        text = "".join(f"{name} = {toml_value(value)}\n" for name, value in config.items())
        if weights.exists() and config_file.read_text(encoding="utf-8") == text:
            return weights
        folder.mkdir(parents=True, exist_ok=True)
        config_file.write_text(text, encoding="utf-8")
        print(f"training {folder.name}", flush=True)
        command = [sys.executable, "train_network.py", "--config_file", str(config_file)]
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=True)
        return weights

    def regularised_weights(self, seed: int) -> Path:
        """Half of the pictures are regularisation pictures: twice the steps, so that the frogs are seen as often as without."""
        changes: dict[str, Any] = {"reg_data_dir": str(self._regularisation_pictures())}
        if "max_train_epochs" not in self.config:
            changes["max_train_steps"] = 2 * self.config["max_train_steps"]
        return self.weights("regularised", seed, **changes)

    def _regularisation_pictures(self) -> Path:
        """What the base draws for the class word, as a --reg_data_dir."""
        folder = self.output / "regularisation" / f"1_{CLASS_WORD}"
        if not folder.exists():
            pictures = Painter(self.base).draw([CLASS_WORD] * REGULARISATION_PICTURES, seed=0)
            folder.mkdir(parents=True)
            for number, picture in enumerate(pictures):
                picture.save(folder / f"{number:02}.png")
        return folder.parent
