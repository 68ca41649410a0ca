"""Packages served by the real cog, alone and by the service: asked for a picture, they answer with one."""
from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file

from networks.lora import create_network
from service.app import create_app
from service.executors.local import LocalExecutor
from service.packages.card import card_of
from service.packages.cog_package import Ingredients, build
from service.packages.inputs import openapi_of
from service.packages.predictor import Answer, Predictor, PredictorRules, Runnable
from service.packages.registry import NewVersion
from service.packages.templates import read_templates
from service.settings import ServiceSettings

BASE = Path(__file__).resolve().parents[2] / "assets" / "base"
TEMPLATES = read_templates().known
INPUTS: dict[str, Any] = {"prompt": "a (frog:1.3)", "num_inference_steps": 2, "seed": 3}


@pytest.fixture
def python() -> Path:
    """Of the environment in which `.ci/real` has put cog."""
    return Path(os.environ["COG_PYTHON"])


@pytest.fixture
def predictor(tmp_path: Path, python: Path) -> Iterator[Predictor]:
    predictor = Predictor(LocalExecutor(tmp_path / "runs", "always", (tmp_path,)), PredictorRules(python))
    yield predictor
    predictor.stop()


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), "green").save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def lora(path: Path) -> Path:
    unet = UNet2DConditionModel.from_pretrained(BASE / "unet")
    network = create_network(1.0, 2, 2.0, unet, [], unet, attn_only="true")
    network.apply_to([], unet, apply_text_encoder=False)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(0.1)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def control(path: Path) -> Path:
    """Random, and as small as the base."""
    ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(BASE / "unet")).save_pretrained(path)
    return path


def built(template: str, tmp_path: Path) -> Runnable:
    weights = lora(tmp_path / "model.safetensors") if template == "lora" else BASE
    controlnet = control(tmp_path / "controlnet") if template == "controlnet" else None
    ingredients = Ingredients(weights, "job", {"model": "tadpole/base", "revision": "main"}, controlnet)
    package = build(TEMPLATES[template], ingredients, tmp_path / "packages", lambda: False)
    return Runnable(package.version_id, package.folder, BASE if template == "lora" else None)


def inputs_for(template: str, **more: Any) -> dict[str, Any]:
    fields = TEMPLATES[template].inputs["properties"]
    pictures = {name: picture() for name, field in fields.items() if field.get("format") == "uri"}
    sides = {side: 128 for side in ("width", "height") if side in fields}
    return {**INPUTS, **pictures, **sides, **more}


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_each_template_answers_with_pictures(template: str, predictor: Predictor, tmp_path: Path) -> None:
    package = built(template, tmp_path)
    answers: list[Answer] = [predictor.predict(package, f"p{number}", inputs_for(template, num_outputs=2)) for number in range(2)]
    assert [answer.status for answer in answers] == ["succeeded", "succeeded"], answers[0].error
    assert [opened(uri).size for uri in answers[0].output] == [(128, 128), (128, 128)]
    assert answers[0].output == answers[1].output  # by one seed
    assert "seed: 3" in answers[0].logs


def test_what_is_out_of_range_is_told(predictor: Predictor, tmp_path: Path) -> None:
    package = built("txt2img", tmp_path)
    for wrong in ({"width": 130}, {"num_inference_steps": 501}, {"scheduler": "none"}, {"width": 1024, "height": 1024}):
        answer = predictor.predict(package, "p", inputs_for("txt2img", **wrong))
        assert answer.status == "failed" and next(iter(wrong)) in str(answer.error)
    assert predictor.predict(package, "q", inputs_for("txt2img")).status == "succeeded"


def test_the_service_answers_with_a_picture(tmp_path: Path, python: Path) -> None:
    settings = ServiceSettings(data_dir=tmp_path / "data", public_url="http://testserver", cog_python=python, sandbox="always")
    app = create_app(settings)
    services, template = app.state.services, TEMPLATES["txt2img"]
    project = services.keys.project("default")
    key = services.keys.create(project, "test")
    package = build(template, Ingredients(BASE, "job"), settings.data_dir / "packages", lambda: False)
    card = card_of("frog", "1", "", template.name, template.inputs, {"instance_prompt": "a frog"})
    new = NewVersion(
        id=package.version_id, job_id=None, label="1", notes=None, template=template.name, cog_version="0.16.12",
        openapi_schema=openapi_of(template.inputs, "frog"), card=card, folder=f"packages/{package.version_id}",
    )  # fmt: skip
    registered = services.registry.add(project, "frog", new)
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        asked = {**INPUTS, "width": 128, "height": 128}
        done = client.post(
            "/v1/predictions", json={"version": registered.name, "input": asked}, headers={"Prefer": "wait=60"}
        ).json()
        while done["status"] in ("starting", "processing"):
            done = client.get(f"/v1/predictions/{done['id']}").json()
        assert done["status"] == "succeeded", done["error"]
        content = client.get(done["output"][0].removeprefix("http://testserver")).content
        assert Image.open(io.BytesIO(content)).size == (128, 128)
        tiyaro = client.post(f"/{registered.path}", json={"input": {"prompt": "a frog", "steps": 2, "width": 128, "height": 128}})
        assert Image.open(io.BytesIO(base64.b64decode(tiyaro.json()["response"]["images"][0]))).size == (128, 128)
