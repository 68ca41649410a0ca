"""Packages served by the real cog, alone and by the service: asked for a picture, they answer with one."""
from __future__ import annotations

import base64
import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import ControlNetModel, UNet2DConditionModel
from fastapi.testclient import TestClient
from PIL import Image, ImageStat
from safetensors.torch import save_file

from networks.lora import create_network
from service.app import create_app
from service.executors.local import LocalExecutor
from service.packages.cog_package import Ingredients, build
from service.packages.predictor import Answer, Predictor, PredictorRules, Runnable
from service.packages.templates import read_templates
from service.settings import ServiceSettings

ASSETS = Path(__file__).resolve().parents[2] / "assets"
BASE, FROGS = ASSETS / "base", ASSETS / "frog" / "20_sls frog"
NAME = "runwayml/stable-diffusion-v1-5"  # what clients ask for; the operator says what it is
TEMPLATES = read_templates().known
CEREBRIUM = {
    "training_type": "diffuser", "name": "frog", "hf_model_path": NAME, "train_prompt": "a 3d emoji of a sls frog",
    "training_args": {"resolution": 64, "max_train_steps": 4, "num_validation_images": 0},
}  # fmt: skip
DRAWN: dict[str, Any] = {"prompt": "a 3d emoji of a (frog:1.1)", "width": 64, "height": 64, "guidance_scale": 4}
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


def frogs(folder: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(FROGS.glob("*.png"))[:4]:
            archive.write(path, folder + path.name)
        if folder:
            archive.writestr("dataset.json", "{}")
            archive.writestr("finetune_config.yaml", yaml.safe_dump(CEREBRIUM))
    return packed.getvalue()


@pytest.fixture
def client(tmp_path: Path, python: Path) -> Iterator[TestClient]:
    """Of a service that works: it trains, builds and draws."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.toml").write_text(f'[models."{NAME}"]\npath = "{BASE.as_posix()}"\n', encoding="utf-8")
    settings = ServiceSettings(data_dir=tmp_path / "data", public_url="http://testserver", cog_python=python, sandbox="always")
    app = create_app(settings)
    services = app.state.services
    key = services.keys.create(services.keys.project("default"), "test")
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def over(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is told when it is over."""
    while (told := ask())["status"] in ("starting", "processing", "pending", "running"):
        time.sleep(0.2)
    assert told["status"] == "succeeded", told
    return told


def local(url: str) -> str:
    return url.removeprefix("http://testserver")


def is_drawn(content: bytes) -> bool:
    """A picture of the size that was asked for, and not of one colour."""
    with Image.open(io.BytesIO(content)) as picture:
        return picture.size == (64, 64) and ImageStat.Stat(picture.convert("L")).stddev[0] > 5


def test_a_dreambooth_of_the_service_draws(client: TestClient) -> None:
    """The flow of Replicate's experiment: upload, train, and ask the version that came of it."""
    upload = client.post("/v1/upload/frogs.zip").json()
    assert client.put(local(upload["upload_url"]), content=frogs()).status_code == 200
    inputs = {
        "instance_prompt": "a 3d emoji of a sls frog", "class_prompt": "a 3d emoji of a frog", "instance_data": upload["serving_url"],
        "num_class_images": 1, "save_infer_steps": 2, "resolution": 64, "max_train_steps": 4, "learning_rate": 1e-5,
    }  # fmt: skip
    made = client.post("/v1/trainings", json={"input": inputs, "model": "default/frog"}).json()
    training = over(lambda: client.get(f"/v1/trainings/{made['id']}").json())
    asked = {"version": training["version"], "input": {**DRAWN, "num_inference_steps": 8, "num_outputs": 2}}
    made = client.post("/v1/predictions", json=asked, headers={"Prefer": "wait=1"}).json()
    done = over(lambda: client.get(f"/v1/predictions/{made['id']}").json())
    pictures = [client.get(local(url)).content for url in done["output"]]
    assert all(map(is_drawn, pictures)) and pictures[0] != pictures[1]
    tiyaro = f"/v1/ent/default/{training['version']}/frog"
    [picture] = client.post(tiyaro, json={"input": {**DRAWN, "steps": 8, "scheduler": "DDIMScheduler"}}).json()["response"]["images"]
    assert is_drawn(base64.b64decode(picture))  # without a seed, as above: each is another
    assert base64.b64decode(picture) not in pictures


def test_a_lora_of_the_service_draws(client: TestClient) -> None:
    """The flow of Cerebrium's command line, and the package of its LoRA on the base that the operator named."""
    made = client.post("/train", json={"name": "frog", "hf_model_path": NAME}).json()
    assert client.put(local(made["uploadUrl"]), content=frogs("dataset/trainingData/")).status_code == 200
    over(lambda: client.post("/job-logs", json={"jobId": made["jobId"]}).json())
    [listed] = client.get("/v1/models/default/frog/versions").json()["results"]
    made = client.post("/v1/predictions", json={"version": listed["id"], "input": {**DRAWN, "num_inference_steps": 8}}).json()
    done = over(lambda: client.get(f"/v1/predictions/{made['id']}").json())
    assert is_drawn(client.get(local(done["output"][0])).content)
