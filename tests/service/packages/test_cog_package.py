"""Packages: what lies in them, and that their id says exactly that."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from service.jobs.stages import Stopped
from service.packages.cog_package import COG_VERSION, CannotBuild, Ingredients, build, changes
from service.packages.templates import SHARED, read_templates

TEMPLATES = read_templates().known


def on() -> bool:
    return False


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder in Diffusers layout, as far as names go."""
    for name in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt", "notes.pdf"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}", encoding="utf-8")
    return tmp_path / "model"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_model(model: Path, tmp_path: Path) -> None:
    package = build(TEMPLATES["txt2img"], Ingredients(model, "job1"), tmp_path / "packages", on)
    assert package.folder == tmp_path / "packages" / package.version_id
    assert names(package.folder) == {
        *("cog.yaml", "predict.py", "Dockerfile", ".dockerignore", "requirements.txt", "drawing.py", "weighted_prompts.py"),
        *("inputs.json", "manifest.json", "weights/model_index.json", "weights/unet/config.json"),
        *("weights/unet/diffusion_pytorch_model.safetensors", "weights/tokenizer/merges.txt"),
    }
    manifest = (package.folder / "manifest.json").read_bytes()
    assert package.version_id == hashlib.sha256(manifest).hexdigest()
    told = json.loads(manifest)
    assert (told["template"], told["training"]) == ("txt2img", "job1")
    for file in told["files"]:
        content = (package.folder / file["path"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {file["path"] for file in told["files"]} == names(package.folder) - {"manifest.json"}
    assert json.loads((package.folder / "inputs.json").read_text(encoding="utf-8")) == TEMPLATES["txt2img"].inputs


def test_built_twice_it_is_the_same_version(model: Path, tmp_path: Path) -> None:
    one, again = (build(TEMPLATES["txt2img"], Ingredients(model, "job1"), tmp_path / "packages", on) for _ in range(2))
    other = build(TEMPLATES["txt2img"], Ingredients(model, "job2"), tmp_path / "packages", on)
    assert one == again and other.version_id != one.version_id
    assert sorted(path.name for path in (tmp_path / "packages").iterdir()) == sorted([one.version_id, other.version_id])


def test_what_was_changed_is_found(model: Path, tmp_path: Path) -> None:
    folder = build(TEMPLATES["txt2img"], Ingredients(model, "job1"), tmp_path / "packages", on).folder
    assert changes(folder) == []
    (folder / "predict.py").write_text("import os", encoding="utf-8")
    (folder / "cog.yaml").unlink()
    (folder / "weights" / "more.py").touch()
    assert changes(folder) == ["cog.yaml", "predict.py", "weights/more.py"]


def test_a_lora_and_the_name_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"lora")
    ingredients = Ingredients(tmp_path / "model.safetensors", "job1", {"model": "me/base", "revision": "main"})
    folder = build(TEMPLATES["lora"], ingredients, tmp_path / "packages", on).folder
    assert (folder / "weights" / "lora.safetensors").read_bytes() == b"lora"
    assert json.loads((folder / "weights" / "base.json").read_text(encoding="utf-8")) == {"model": "me/base", "revision": "main"}


def test_a_controlnet_is_put_beside_the_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "config.json").write_text("{}", encoding="utf-8")
    ingredients = Ingredients(model, "job1", controlnet=tmp_path / "control")
    assert (build(TEMPLATES["controlnet"], ingredients, tmp_path / "packages", on).folder / "controlnet" / "config.json").is_file()


@pytest.mark.parametrize(
    ("template", "is_model", "told"),
    [
        ("lora", True, "is for LoRAs, and a whole model was trained"),
        ("img2img", False, "is for whole models"),
        ("controlnet", True, "needs a ControlNet, and the operator has named none"),
    ],
)
def test_what_does_not_go_together(model: Path, tmp_path: Path, template: str, is_model: bool, told: str) -> None:
    weights = model if is_model else model / "model_index.json"
    with pytest.raises(CannotBuild, match=told):
        build(TEMPLATES[template], Ingredients(weights, "job1"), tmp_path / "packages", on)
    assert not (tmp_path / "packages").exists()


def test_what_was_stopped_leaves_nothing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        build(TEMPLATES["txt2img"], Ingredients(model, "job1"), tmp_path / "packages", lambda: True)
    assert list((tmp_path / "packages").iterdir()) == []


def test_the_package_is_served_by_the_cog_that_it_names() -> None:
    assert f"cog=={COG_VERSION}\n" in (SHARED / "requirements.txt").read_text(encoding="utf-8")
