"""The layout of a job's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OUTPUT_NAME = "model"
PICTURES = re.compile(r"\d{5}\.(png|jpg|jpeg|webp|bmp)")  # the names that uploads get here


@dataclass(frozen=True)
class JobFolder:
    """Where a job keeps what."""

    root: Path

    @property
    def archive(self) -> Path:
        return self.root / "input" / "archive.zip"

    @property
    def class_archive(self) -> Path:
        """Of clients that send class pictures apart."""
        return self.root / "input" / "class_archive.zip"

    @property
    def instance_pictures(self) -> Path:
        return self.root / "pictures" / "instance"

    @property
    def class_pictures(self) -> Path:
        return self.root / "pictures" / "class"

    @property
    def preview(self) -> Path:
        """Small copies of the pictures, for the page."""
        return self.root / "preview"

    @property
    def run_file(self) -> Path:
        return self.root / "run.toml"

    @property
    def dataset_file(self) -> Path:
        return self.root / "dataset.toml"

    @property
    def prompts_file(self) -> Path:
        return self.root / "prompts.toml"

    @property
    def arguments_file(self) -> Path:
        """The resolved request, for people and for args.json."""
        return self.root / "args.json"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def samples(self) -> Path:
        return self.output / "sample"

    @property
    def processors_root(self) -> Path:
        """What of `attention_processors` is its path in results."""
        return self.root / "processors"

    @property
    def attention_processors(self) -> Path:
        """A LoRA as Diffusers' attention processors; nothing of other trainings."""
        return self.processors_root / "checkpoints" / "final" / "attn_procs"

    @property
    def result(self) -> Path:
        return self.root / "result"

    def stage(self, name: str) -> Path:
        return self.root / "stages" / name

    def log(self, name: str) -> Path:
        return self.root / "stages" / f"{name}.log"

    def events(self) -> list[Path]:
        """The trainer's event files, the earliest run first."""
        return sorted(self.output.glob(f"{OUTPUT_NAME}-runs/*/events.jsonl"))

    def weights(self) -> Path | None:
        """What was trained: a folder in Diffusers layout, or a file; None while there is none."""
        found = (self.output / OUTPUT_NAME, self.output / f"{OUTPUT_NAME}.safetensors")
        return next((path for path in found if path.exists()), None)

    def has_state(self) -> bool:
        """Whether a training that broke off can go on."""
        return any(self.output.glob(f"{OUTPUT_NAME}*-state/train_state.json"))

    def count_pictures(self, folder: Path) -> int:
        return sum(bool(PICTURES.fullmatch(path.name)) for path in folder.iterdir()) if folder.is_dir() else 0


def write_whole(path: Path, text: str) -> None:
    """In one step: a trainer that just starts may read the file that is there, which a killed service wrote."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
