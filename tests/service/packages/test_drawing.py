"""What packages draw with: weighted prompts, inputs checked, and each kind of drawing with a tiny model."""
from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image, ControlNetModel, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from networks.lora import create_network
from service.packages.templates import SHARED, read_templates
from tests.tiny_models import tiny_sd1_folder

TEMPLATES = read_templates().known
KINDS = {"txt2img": "text", "lora": "text", "img2img": "image", "inpainting": "inpainting", "controlnet": "control"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd1_folder(tmp_path_factory.mktemp("drawing") / "model", short=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module `drawing` as it lies in a package."""
    for name in ("drawing.py", "weighted_prompts.py"):
        shutil.copyfile(SHARED / name, tmp_path / name)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("drawing", "weighted_prompts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("drawing")
    for name in ("drawing", "weighted_prompts"):
        sys.modules.pop(name, None)


@pytest.fixture
def prompts(package: ModuleType) -> ModuleType:
    return importlib.import_module("weighted_prompts")


# --- weighted prompts ---


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a frog", [("a frog", 1.0)]),
        ("", []),
        ("a (frog) here", [("a ", 1.0), ("frog", 1.1), (" here", 1.0)]),
        ("a (frog:1.5)", [("a ", 1.0), ("frog", 1.5)]),
        ("a [frog]", [("a ", 1.0), ("frog", 1 / 1.1)]),
        ("((frog))", [("frog", 1.1 * 1.1)]),
        ("(a (frog:2):0.5)", [("a ", 0.5), ("frog", 1.0)]),
        (r"a \(frog\)", [("a (frog)", 1.0)]),
        ("a (frog", [("a (frog", 1.0)]),
        ("a frog)", [("a frog)", 1.0)]),
        ("(frog:1e9)", [("frog:1e9", 1.1)]),
        ("(frog:99)", [("frog", 10.0)]),
        ("(a: b)", [("a: b", 1.1)]),
    ],
)
def test_the_parts_of_a_prompt(prompts: ModuleType, prompt: str, parts: list[tuple[str, float]]) -> None:
    found = prompts.read_prompt(prompt)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Any:
    return AutoPipelineForText2Image.from_pretrained(model)


def test_without_weights_it_is_what_the_pipeline_itself_says(prompts: ModuleType, pipeline: Any) -> None:
    found = prompts.embeddings(pipeline, "a green frog", "dull")
    wanted, negative = pipeline.encode_prompt("a green frog", "cpu", 1, True, "dull")
    torch.testing.assert_close(found["prompt_embeds"], wanted)
    torch.testing.assert_close(found["negative_prompt_embeds"], negative)


def test_a_weight_scales_its_words_against_the_others(prompts: ModuleType, pipeline: Any) -> None:
    plain, weighted = (prompts.embeddings(pipeline, text, "")["prompt_embeds"] for text in ("a green frog", "a (green:1.5) frog"))
    scale = (weighted / plain)[0, :, 0]
    torch.testing.assert_close(scale[2] / scale[1], torch.tensor(1.5))
    torch.testing.assert_close(scale[3], scale[1])
    torch.testing.assert_close(weighted.abs().mean(), plain.abs().mean(), rtol=1e-3, atol=1e-5)


def test_a_long_prompt_has_several_pieces_and_so_has_the_other(prompts: ModuleType, pipeline: Any) -> None:
    found = prompts.embeddings(pipeline, "frog " * 100, "")
    assert [found[name].shape[1] for name in ("prompt_embeds", "negative_prompt_embeds")] == [154, 154]
    endless = prompts.embeddings(pipeline, "frog " * 5000, "")
    assert endless["prompt_embeds"].shape[1] == 8 * 77


# --- drawing ---


def inputs_for(template: str, folder: Path, **more: Any) -> dict[str, Any]:
    """All inputs of a template, as cog hands them over."""
    Image.new("RGB", (70, 66), "green").save(folder / "frog.png")
    fields = TEMPLATES[template].inputs["properties"]
    values = {name: field.get("default") for name, field in fields.items()}
    values |= {name: folder / "frog.png" for name, field in fields.items() if field.get("format") == "uri"}
    values |= {"prompt": "a (frog:1.2)", "num_inference_steps": 1, "seed": 3}
    values |= {side: 128 for side in ("width", "height") if side in values}
    return {**values, **more}


def prepare(template: str, folder: Path, model: Path) -> None:
    (folder / "inputs.json").write_text(json.dumps(TEMPLATES[template].inputs), encoding="utf-8")
    if template != "lora":
        shutil.copytree(model, folder / "weights")
    else:
        (folder / "weights").mkdir()
        (folder / "weights" / "base.json").write_text(json.dumps({"model": "me/base", "revision": "main"}), encoding="utf-8")
        unet = UNet2DConditionModel.from_pretrained(model / "unet")
        network = create_network(1.0, 2, 2.0, unet, [], unet, attn_only="true")
        network.apply_to([], unet, apply_text_encoder=False)
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(0.3)
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "weights" / "lora.safetensors")
    if template == "controlnet":
        ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(model / "unet")).save_pretrained(folder / "controlnet")


@pytest.mark.parametrize("template", KINDS)
def test_each_template_draws(template: str, package: ModuleType, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(template, tmp_path, model)
    monkeypatch.setenv("BASE_MODEL_PATH", str(model))  # only the package of a LoRA looks for it
    painter = package.Painter(KINDS[template])
    inputs = inputs_for(template, tmp_path, num_outputs=2)
    [one, two] = [Image.open(path) for path in painter.paint(inputs)]
    assert one.format == "PNG" and one.size == ((64, 64) if template in ("img2img", "inpainting") else (128, 128))
    assert one.tobytes() != two.tobytes()  # each has a seed of its own
    [again, _] = [Image.open(path) for path in painter.paint(inputs)]
    assert again.tobytes() == one.tobytes()


@pytest.mark.parametrize(("strength", "steps", "drawn"), [(0.8, 50, 40), (1.0, 1, 1), (0.8, 1, 1), (0.05, 3, 1), (0.05, 19, 1), (0.05, 500, 25)])
def test_at_least_a_step_is_drawn(package: ModuleType, strength: float, steps: int, drawn: int) -> None:
    share = package.at_least_a_step(strength, steps)
    assert share <= 1 and int(share * steps) == drawn


def test_the_lora_is_used(package: ModuleType, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("lora", tmp_path, model)
    monkeypatch.setenv("BASE_MODEL_PATH", str(model))
    painter, inputs = package.Painter("text"), inputs_for("lora", tmp_path)
    with_it = Image.open(painter.paint(inputs)[0]).tobytes()
    painter._pipeline.unload_lora_weights()
    assert Image.open(painter.paint(inputs)[0]).tobytes() != with_it


@pytest.mark.parametrize("scheduler", TEMPLATES["txt2img"].inputs["properties"]["scheduler"]["enum"])
def test_every_scheduler_draws(scheduler: str, package: ModuleType, tmp_path: Path, model: Path) -> None:
    prepare("txt2img", tmp_path, model)
    painter = package.Painter("text")
    for steps in (1, 3):
        assert painter.paint(inputs_for("txt2img", tmp_path, scheduler=scheduler, num_inference_steps=steps))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 130}, "width: this is one of 64, 128"),
        ({"num_outputs": 11}, "num_outputs: this is 1 to 10"),
        ({"num_outputs": None}, "num_outputs: this is missing"),
        ({"guidance_scale": float("nan")}, "guidance_scale: this is 1 to 20"),
        ({"scheduler": "__import__"}, "scheduler: this is one of DDIM"),
        ({"width": 1024, "height": 1024}, "width x height is more than 786432"),
        ({"prompt": "a" * 1001}, "prompt: this has at most 1000 characters"),
        ({"seed": -1, "num_inference_steps": 0}, "num_inference_steps.*; seed|seed.*; num_inference_steps"),
    ],
)
def test_inputs_are_checked_here_too(wrong: dict[str, Any], told: str, package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text(json.dumps(TEMPLATES["txt2img"].inputs), encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        package.check(inputs_for("txt2img", tmp_path, **wrong))


def test_what_is_no_picture_is_told(package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    with pytest.raises(ValueError, match="mask: this is no picture"):
        package.read_picture("mask", tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="image: a picture is needed"):
        package.read_picture("image", None)
    Image.new("L", (2000, 1000)).save(tmp_path / "large.png")
    picture = package.read_picture("image", tmp_path / "large.png")
    assert picture.width * picture.height <= 786432 and picture.width % 8 == picture.height % 8 == 0


def test_without_weights_it_says_so(package: ModuleType) -> None:
    with pytest.raises(FileNotFoundError, match="this package has no folder weights"):
        package.Painter("text")
