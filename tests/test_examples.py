"""The examples: each names commands that use it, and every one of these passes all checks on pictures as the example tells of."""
from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.config.scripts import SCRIPTS
from library.train import app
from library.train.signals import StopRequest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
MODEL = "path/to/model.safetensors"  # stands for the person's own


def commands(example: Path) -> list[list[str]]:
    """The commands in the comment at the head of an example: the script and its arguments."""
    lines = example.read_text(encoding="utf-8").splitlines()
    head = "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))])
    found = re.findall(r"^#     python launch\.py (\S+\.py.*)$", re.sub(r" \\\n# +", " ", head), re.MULTILINE)
    return [shlex.split(command) for command in found]


COMMANDS = [pytest.param(command, id=f"{example.stem}-{command[0]}") for example in EXAMPLES for command in commands(example)]


def draw(path: Path, seed: int, size: tuple[int, int] = (96, 64), kind: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert(kind).resize(size).save(path)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are given: with the examples, and pictures/ as they tell of it."""
    pictures = tmp_path / "pictures"
    for number in range(1, 5):
        draw(pictures / "frog" / f"frog_{number}.png", number)
        write(pictures / "frog" / f"frog_{number}.txt", f"sls frog, on stone {number}, green leaves")
        draw(pictures / "frog_masks" / f"frog_{number}.png", 10 + number, kind="L")
        draw(pictures / "cut_out" / f"{number}.png", 20 + number, kind="RGBA")
        write(pictures / "cut_out" / f"{number}.txt", "sls frog")
        draw(pictures / "ponds" / f"{number}.png", 30 + number)
    write(pictures / "ponds" / "1.txt", "a {small|tiny} pond with reeds\na pond\n")
    draw(pictures / "frog_001.png", 40, (1024, 768))
    draw(pictures / "ponds" / "toad_17.png", 41)
    entries = {"frog_001": {"caption": "a frog on a stone", "tags": "green, wet", "image_size": [1024, 768]},
               "ponds/toad_17.png": {"tags": "toad, brown"}}  # fmt: skip
    write(pictures / "meta.json", json.dumps(entries))
    draw(tmp_path / "close_up.png", 42)
    write(tmp_path / "close_ups.jsonl", json.dumps({"image_path": str(tmp_path / "close_up.png"), "caption": "an eye"}))
    (tmp_path / "examples").mkdir()
    for example in (ROOT / "examples").iterdir():
        write(tmp_path / "examples" / example.name, _with_what_there_is(example.read_text(encoding="utf-8")))
    readme = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert readme is not None
    write(tmp_path / "my_lora.toml", _with_what_there_is(readme[1]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _with_what_there_is(text: str) -> str:
    return text.replace(MODEL, "assets/base").replace('"assets/', f'"{ROOT.as_posix()}/assets/')


@pytest.fixture
def dry_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """A script in this process, which leaves signals and logging as they are; a person's mistakes are raised."""
    monkeypatch.setattr(StopRequest, "listen", lambda self: None)
    monkeypatch.setattr(app, "set_up_logging", lambda options, is_main: None)
    return lambda command: app.run(SCRIPTS[command[0]], [*command[1:], "--dry_run"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_each_names_a_command_that_uses_it(example: Path) -> None:
    assert any(f"examples/{example.name}" in command for command in commands(example))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_pass_all_checks(command: list[str], folder: Path, dry_run: Callable[[list[str]], int], capsys) -> None:
    assert dry_run(command) == 0
    said = capsys.readouterr().out
    assert "dry run: everything is in order" in said
    assert set(re.findall(r"(\d+) missing", said)) == {"0"}  # captions
