"""assets/build_pictures.py on small archives in the place of npm's: which pictures it takes, how it draws and describes them."""
from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="renders the vector pictures: pip install resvg-py")

from assets import build_pictures
from library.config.check import check_settings
from library.config.load import load_settings
from library.data.metadata_files import read_metadata
from library.sampling.prompts import read_prompts

ROOT = Path(__file__).parents[2]
SQUARE = '<path fill="#ff0000" d="M8 8h16v16H8z"/>'
EMOJI = [
    {"label": "frog", "hexcode": "1F438", "tags": ["animal", "face", "frog"], "group": 3},
    {"label": "red heart", "hexcode": "2764", "tags": ["love", "red"], "group": 0},
    {"label": "person", "hexcode": "1F9D1", "tags": ["adult"], "group": 1},
    {"label": "keycap: 1", "hexcode": "31-FE0F-20E3", "tags": [], "group": 8},
]


def webp(colour: tuple[int, int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (256, 256), colour).save(file, format="WEBP", lossless=True)
    return file.getvalue()


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


FILES = {
    build_pictures.ART_3D: {
        "assets/1f438.webp": webp((0, 128, 0, 255)),
        "assets/2764-fe0f.webp": webp((0, 0, 0, 0)),
        "assets/1f9d1.webp": webp((0, 0, 0, 255)),
        "assets/0031-fe0f-20e3.webp": webp((0, 0, 0, 255)),
    },
    build_pictures.ART_FLAT: {
        "icons.json": as_json({"width": 32, "height": 32, "icons": {"frog": {"body": SQUARE}, "person": {"body": SQUARE}}}),
        "chars.json": as_json({"1f438": "frog", "1f9d1": "person", "2764-fe0f": "an-alias"}),
    },
    build_pictures.LABELS: {"en/data.json": as_json(EMOJI)},
}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    archives = {package: archive(tmp_path / f"{number}.tgz", files) for number, (package, files) in enumerate(FILES.items())}
    monkeypatch.setattr(build_pictures, "fetch", lambda package, folder: archives[package])
    monkeypatch.setattr(sys, "argv", ["build_pictures.py", str(tmp_path / "pictures"), "--size", "32"])
    build_pictures.main()
    return tmp_path / "pictures"


def test_what_has_a_label_and_is_not_left_out_is_drawn_on_white(built: Path) -> None:
    pictures = {path.name: Image.open(path) for path in built.glob("*.png")}
    assert pictures.keys() == {"3d_1f438.png", "3d_2764.png", "vector_1f438.png"}
    assert all((picture.size, picture.mode) == ((32, 32), "RGB") for picture in pictures.values())
    assert pictures["3d_1f438.png"].getpixel((16, 16)) == (0, 128, 0)
    assert pictures["3d_2764.png"].getpixel((16, 16)) == (255, 255, 255)
    assert [pictures["vector_1f438.png"].getpixel(place) for place in ((2, 2), (16, 16))] == [(255, 255, 255), (255, 0, 0)]


def test_the_metadata_file_is_one_that_fine_tune_reads(built: Path) -> None:
    entries = {entry.key: entry for entry in read_metadata(built / "meta.json").entries}
    assert entries.keys() == {path.name for path in built.glob("*.png")}
    frog = entries["vector_1f438.png"]
    assert frog.tags == "animal, face"
    assert set(frog.caption.strip("{}").split("|")) == {"a vector emoji of a frog", "a drawing of a frog", "frog"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("frog", "a frog"),
        ("octopus", "an octopus"),
        ("grapes", "grapes"),
        ("bus", "a bus"),
        ("face with rolling eyes", "a face with rolling eyes"),
        ("1st place medal", "a 1st place medal"),
    ],
)
def test_articles(label: str, expected: str) -> None:
    assert build_pictures.with_article(label) == expected


def test_an_archive_that_is_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = build_pictures.LABELS
    content = archive(tmp_path / "it.tgz", FILES[package]).read_bytes()
    monkeypatch.setattr(build_pictures.shutil, "which", lambda name: name)
    answer = subprocess.CompletedProcess([], 0, stdout=json.dumps([{"filename": "it.tgz"}]))
    monkeypatch.setattr(build_pictures.subprocess, "run", lambda *arguments, **others: answer)
    with pytest.raises(SystemExit, match="not the one that this script was written for"):
        build_pictures.fetch(package, tmp_path)
    monkeypatch.setitem(build_pictures.PACKAGES, package, base64.b64encode(hashlib.sha512(content).digest()).decode())
    assert build_pictures.fetch(package, tmp_path) == tmp_path / "it.tgz"


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["build_pictures.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="this is there already"):
        build_pictures.main()


# --- the recipe ---


def test_the_recipe_is_in_order() -> None:
    settings = load_settings("fine_tune.py", ["--config_file", str(ROOT / "assets" / "base.toml")])
    assert check_settings(settings) == []
    prompts = read_prompts(ROOT / (settings.sampling.sample_prompts or ""))
    assert len({prompt.prompt for prompt in prompts}) == 20
    assert all((prompt.width, prompt.height) == settings.data.resolution for prompt in prompts)
