"""What a mistake looks like in the tables, and how its folder is made."""
from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bad_input.bad_files import Copied, Maker, picture

Content = str | bytes | Maker | Copied | None  # text, bytes, what makes the file; None removes what is there
IMAGES = "data/2_sls frog"


@dataclass(frozen=True)
class Case:
    """One mistake on top of a run without any. {here} stands for its folder, {models} for that of the models."""

    name: str
    expected: tuple[str, ...]  # each stands in the message
    config: Mapping[str, Any] = field(default_factory=dict)  # written over run.toml; None leaves the key out
    files: Mapping[str, Content] = field(default_factory=dict)  # by path, in this order
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def make(case: Case, here: Path, models: Path) -> list[str]:
    """Makes the case's folder; returns the flags."""
    for name in ("red", "blue"):
        picture(here / IMAGES / f"{name}.png", name)
    config = {**plain_config(), **case.config}
    lines = [
        f"{key} = {json.dumps(filled(value, str(here), str(models)), ensure_ascii=False)}\n"
        for key, value in config.items()
        if value is not None
    ]
    (here / "run.toml").write_text("".join(lines), encoding="utf-8")
    for name, content in case.files.items():
        put(here / name, filled(content, here.as_posix(), models.as_posix()), models)
    flags = [filled(flag, str(here), str(models)) for flag in case.flags]
    return flags if "--config_file" in flags else ["--config_file", str(here / "run.toml"), *flags]


def filled(value: Any, here: str, models: str) -> Any:
    """A text, or a list of texts, with the names of the two folders in their places; anything else as it is."""
    if isinstance(value, list):
        return [filled(item, here, models) for item in value]
    return value.replace("{here}", here).replace("{models}", models) if isinstance(value, str) else value


def plain_config() -> dict[str, Any]:
    """A run that trains for two steps."""
    return {
        "pretrained_model_name_or_path": "{models}/diffusers",
        "train_data_dir": "{here}/data",
        "output_dir": "{here}/out",
        "output_name": "frog",
        "network_module": "networks.lora",
        "network_dim": 2,
        "resolution": 64,
        "train_batch_size": 2,
        "learning_rate": 0.001,
        "max_train_steps": 2,
        "max_data_loader_n_workers": 0,
        "seed": 1,
    }


def put(path: Path, content: Content, models: Path) -> None:
    """The one way in which the tables change files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Copied):
        content.make(path, models)
    else:
        content(path)
