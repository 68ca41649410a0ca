"""The templates of packages: ours, and those of the operator."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

from library.errors import UserError
from service.packages.templates import OURS, SHARED, read_templates
from service.training.fields import BadInput

OURS_BY_NAME = {"controlnet", "img2img", "inpainting", "lora", "txt2img"}
PREDICT = "class Predictor:\n    def predict(self, prompt: str = Input(default='')): ...\n"


def template(folder: Path, name: str, manifest: str = "", predict: str = PREDICT) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "template.toml").write_text(manifest, encoding="utf-8")
    (folder / name / "predict.py").write_text(predict, encoding="utf-8")
    return folder


def test_ours() -> None:
    templates = read_templates()
    assert templates.known.keys() == OURS_BY_NAME
    for found in templates.known.values():
        assert {"Dockerfile", ".dockerignore", "cog.yaml", "predict.py", "drawing.py", "weighted_prompts.py"} <= found.files().keys()
        assert {"prompt", "negative_prompt", "num_outputs", "num_inference_steps", "guidance_scale", "scheduler", "seed"} <= found.inputs["properties"].keys()
        assert (found.weights == "lora", found.needs_controlnet) == (found.name == "lora", found.name == "controlnet")
    for name, needed in (("img2img", ["image"]), ("inpainting", ["image", "mask"]), ("controlnet", ["control_image"])):
        assert templates.known[name].inputs["required"] == needed


def test_all_draw_by_the_same_schedulers() -> None:
    drawn_by = {tuple(found.inputs["properties"]["scheduler"]["enum"]) for found in read_templates().known.values()}
    tree = ast.parse((SHARED / "drawing.py").read_text(encoding="utf-8"))
    [known] = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCHEDULERS"]
    assert drawn_by == {tuple(ast.literal_eval(known))}


def test_a_template_is_chosen_by_name_by_version_or_by_what_was_trained(tmp_path: Path) -> None:
    templates = read_templates(template(tmp_path, "toon", 'versions = ["0f5c"]\nweights = "model"\n'))
    assert templates.select(None, "dreambooth").name == "txt2img"
    assert templates.select(None, "lora").name == "lora"
    assert templates.select("img2img", "dreambooth").name == "img2img"
    assert templates.select("somebody/toon:0f5c", "dreambooth").name == "toon"
    with pytest.raises(BadInput, match='template_version: "img2im" is no template here.*img2img'):
        templates.select("img2im", "dreambooth")


def test_a_template_of_the_operator_takes_the_place_of_ours(tmp_path: Path) -> None:
    found = read_templates(template(tmp_path, "txt2img", 'description = "Mine."\n')).known["txt2img"]
    assert found.description == "Mine." and found.files()["predict.py"].parent != OURS / "txt2img"
    assert found.files()["drawing.py"].parent == SHARED


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("wieghts = 1", "unknown key wieghts"),
        ('weights = "checkpoint"', 'weights: write "model" or "lora"'),
        ("controlnet = 1", "controlnet: this is true or false"),
        ("versions = 1", "versions: write a list of names"),
        ('versions = ["lora"]', "lora is that of lora"),
    ],
)
def test_mistakes_in_a_manifest(tmp_path: Path, manifest: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_templates(template(tmp_path, "mine", manifest))


def test_a_template_needs_a_predictor(tmp_path: Path) -> None:
    (template(tmp_path, "mine") / "mine" / "predict.py").unlink()
    with pytest.raises(UserError, match="predict.py: there is no such file"):
        read_templates(tmp_path)
