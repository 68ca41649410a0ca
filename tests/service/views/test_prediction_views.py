"""Predictions over the web: Replicate's, Tiyaro's URL of a model, and model cards. What draws is a fake of cog's server."""
from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.database.tables import Prediction
from service.packages.registry import Registered
from service.services import Services
from service.settings import ServiceSettings
from service.views import prediction_jobs, predictions
from service.views.prediction_jobs import seconds_to_wait
from tests.service.packages.fake_packages import register

ASKED = {"prompt": "a frog", "width": 512}


@pytest.fixture
def version(services: Services) -> Registered:
    return register(services, label="1.0")


def create(client: TestClient, version: Registered, status: int = 201, **more: Any) -> Any:
    answer = client.post("/v1/predictions", json={"version": version.version.id, "input": ASKED, **more})
    assert answer.status_code == status, answer.text
    return answer.json()


# --- without anybody who draws ---


def test_a_prediction_has_what_its_clients_parse(client: TestClient, version: Registered) -> None:
    made = create(client, version)
    address = f"http://testserver/v1/predictions/{made['id']}"
    assert made == client.get(f"/v1/predictions/{made['id']}").json()
    assert made == {
        "id": made["id"], "model": "default/frogs", "version": version.version.id, "status": "starting", "input": ASKED, "output": None,
        "logs": "", "error": None, "metrics": {}, "created_at": made["created_at"], "started_at": None, "completed_at": None,
        "urls": {"get": address, "cancel": f"{address}/cancel"}, "source": "api", "data_removed": False,
    }  # fmt: skip
    assert [found["id"] for found in client.get("/v1/predictions").json()["results"]] == [made["id"]]


@pytest.mark.parametrize("name", ["{id}", "default/frogs:{id}", "default/frogs:1.0", "default/frogs"])
def test_what_a_version_is_called(name: str, client: TestClient, version: Registered) -> None:
    asked = name.format(id=version.version.id)
    answer = client.post("/v1/predictions", json={"version": asked, "input": ASKED})
    assert (answer.status_code, answer.json()["version"]) == (201, version.version.id)


def test_the_newest_version_of_a_model(client: TestClient, version: Registered, services: Services) -> None:
    newer = register(services, label="2.0")
    answer = client.post("/v1/models/default/frogs/predictions", json={"input": ASKED})
    assert (answer.status_code, answer.json()["version"]) == (201, newer.version.id)
    assert client.post("/v1/models/default/toads/predictions", json={"input": ASKED}).status_code == 404
    assert client.get("/v1/models/default/frogs").json()["run_count"] == 1


def test_mistakes_are_named(client: TestClient, version: Registered) -> None:
    told = create(client, version, 422, input={"width": 513, "Prompt": "a"})
    assert {wrong["field"] for wrong in told["invalid_fields"]} == {"input.width", "input.Prompt"}
    answer = client.post("/v1/predictions", json={"version": "ff", "input": ASKED})
    assert (answer.status_code, answer.json()["invalid_fields"][0]["field"]) == (422, "version")
    told = create(client, version, 422, webhook="ftp://example.com/hook")
    assert told["invalid_fields"][0]["field"] == "webhook"


def test_addresses_in_inputs_are_checked_at_once(client: TestClient, services: Services) -> None:
    version = register(services, template="img2img")
    told = create(client, version, 422, input={"image": "file:///etc/passwd"})
    assert told["invalid_fields"][0]["field"] == "input.image"


def test_cancel_can_be_repeated(client: TestClient, version: Registered) -> None:
    made = create(client, version)
    first, second = (client.post(f"/v1/predictions/{made['id']}/cancel").json() for _ in range(2))
    assert first == second and first["status"] == "canceled"


def test_strangers_see_nothing(client: TestClient, stranger: TestClient, version: Registered) -> None:
    made = create(client, version)
    assert stranger.get(f"/v1/predictions/{made['id']}").status_code == 404
    assert stranger.post(f"/v1/predictions/{made['id']}/cancel").status_code == 404
    assert stranger.get("/v1/predictions").json()["results"] == []
    assert stranger.post("/v1/predictions", json={"version": version.version.id, "input": ASKED}).status_code == 422
    assert stranger.post("/v1/ent/default/1.0/frogs", json={"input": ASKED}).status_code == 404


def test_a_training_is_a_prediction_too(client: TestClient) -> None:
    body = {"input": {"instance_prompt": "a cjw frog", "class_prompt": "a frog", "instance_data": "https://example.com/p.zip"}, "model": "default/mine"}
    training = client.post("/v1/trainings", json=body).json()
    assert client.get(f"/v1/predictions/{training['id']}").json() == training
    assert [found["id"] for found in client.get("/v1/predictions").json()["results"]] == [training["id"]]
    assert client.post(f"/v1/predictions/{training['id']}/cancel").json()["status"] == "canceled"
    assert client.get("/v1/predictions/nothing").status_code == 404


def test_who_has_waited_in_vain_is_told_that_it_starts(
    client: TestClient, version: Registered, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicate's clients ask again after "starting" only: they take "processing" for an end without pictures."""
    async def in_vain(services: Services, prediction: Prediction, seconds: float) -> Prediction:
        assert seconds == 59
        claimed = services.predictions.claim("somebody")
        assert claimed is not None and claimed.state == "processing"
        return claimed

    monkeypatch.setattr(predictions, "when_done", in_vain)
    body = {"version": version.version.id, "input": ASKED}
    made = client.post("/v1/predictions", json=body, headers={"Prefer": "wait"}).json()
    assert (made["status"], client.get(f"/v1/predictions/{made['id']}").json()["status"]) == ("starting", "processing")


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [("", 0), ("wait", 59), ("wait=5", 4), ("wait=1", 0.5), ("wait=0", 0.5), ("wait=9999", 59), ("respond-async, wait=7", 6), ("respond-async", 0), ("waiting=3", 0)],
)
def test_what_prefer_asks_for(prefer: str, seconds: float) -> None:
    assert seconds_to_wait(prefer) == seconds


def test_who_waits_is_answered_in_time(client: TestClient, version: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients hang up half a second after what they asked for: the last pause is as short as what is left."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(prediction_jobs, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(prediction_jobs, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(prediction_jobs, "time", SimpleNamespace(monotonic=lambda: sum(slept)))
    body = {"version": version.version.id, "input": ASKED}
    assert client.post("/v1/predictions", json=body, headers={"Prefer": "wait=2"}).json()["status"] == "starting"
    assert slept == pytest.approx([0.3, 0.3, 0.3, 0.1])


# --- with a package that is served ---


@pytest.fixture
def served(settings: ServiceSettings) -> Iterator[TestClient]:
    """A service that works, and a client of its."""
    app = create_app(replace(settings, sandbox="never", cog_python=Path(sys.executable)))
    keys = app.state.services.keys
    key = keys.create(keys.project("default"), "test")
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def services_of(client: TestClient) -> Services:
    return client.app.state.services  # type: ignore[attr-defined]


def test_wait_answers_with_pictures(served: TestClient) -> None:
    version = register(services_of(served))
    body = {"version": version.version.id, "input": ASKED}
    done = served.post("/v1/predictions", json=body, headers={"Prefer": "wait=60"}).json()
    assert (done["status"], done["error"]) == ("succeeded", None) and set(done["metrics"]) == {"predict_time", "total_time"}
    [picture] = done["output"]
    assert b"picture of a frog" in served.get(picture.removeprefix("http://testserver"), headers={"Authorization": ""}).content


def test_what_runs_is_canceled(served: TestClient) -> None:
    version = register(services_of(served))
    slow = served.post("/v1/predictions", json={"version": version.version.id, "input": {"prompt": "slow"}}).json()
    assert served.post(f"/v1/predictions/{slow['id']}/cancel").json()["status"] == "canceled"
    body = {"version": version.version.id, "input": ASKED}
    assert served.post("/v1/predictions", json=body, headers={"Prefer": "wait"}).json()["status"] == "succeeded"


def test_tiyaros_url_answers_with_pictures(served: TestClient) -> None:
    version = register(services_of(served), name="pets/frogs", label="1.0")
    assert version.path == "v1/ent/default/1.0/pets/frogs"
    asked = {
        "prompt": "a frog", "negative_prompt": "", "scheduler": "DDIMScheduler", "seed": None, "steps": 20, "guidance_scale": 7.5,
        "width": 512, "height": 512, "disable_safety_checker": True,
    }  # fmt: skip
    answer = served.post(f"/{version.path}?serviceTier=gpuflex", json={"input": asked})
    assert answer.status_code == 200, answer.text
    [picture] = answer.json()["response"]["images"]
    assert b"picture of a frog" in base64.b64decode(picture)
    [made] = served.get("/v1/predictions").json()["results"]
    assert made["input"] == {
        "prompt": "a frog", "negative_prompt": "", "scheduler": "DDIM", "num_inference_steps": 20, "guidance_scale": 7.5, "width": 512, "height": 512,
    }  # fmt: skip
    failed = served.post(f"/{version.path}", json={"input": {"prompt": "fail"}})
    assert (failed.status_code, failed.json()["detail"]) == (502, "no frog")
    assert served.post(f"/{version.path}", json={"input": {"steps": 501}}).json()["invalid_fields"][0]["field"] == "input.num_inference_steps"


# --- cards ---


def test_a_card_is_json_and_a_page(client: TestClient, version: Registered, services: Services) -> None:
    link = services.card_links.link(version.model.project_id, version.version.id).removeprefix("http://testserver")
    visitor = TestClient(client.app)
    card = visitor.get(link).json()
    assert {"name": "frogs", "version": "1.0", "vendor": "default", "desc": "Draws frogs."}.items() <= card.items()
    assert card["url"] == "http://testserver/v1/ent/default/1.0/frogs"
    assert card["sampleRequest"] == {"input": {"prompt": "a cjw <frog>", "width": 512, "height": 512}}
    assert "prompt" in card["inputs"]["properties"]
    page = visitor.get(link, headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "a cjw &lt;frog&gt;" in page.text and "<frog>" not in page.text
    assert page.text.index("<code>prompt</code>") < page.text.index("<code>seed</code>")  # in the order of the signature
    assert visitor.get("/cards/model_card.css").headers["content-type"].startswith("text/css")


def test_a_card_needs_its_link(client: TestClient, version: Registered, services: Services) -> None:
    other = services.card_links.token(services.keys.project("other"), version.version.id)
    for token in ("", "x", other, "a" * 5000):
        assert client.get(f"/cards/{version.version.id}", params={"token": token}).status_code == 404


def test_the_card_of_a_version_leads_to_its_link(client: TestClient, version: Registered) -> None:
    card = client.get(f"/v1/models/default/frogs/versions/{version.version.id}/card").json()
    assert TestClient(client.app).get(card["modelCard"].removeprefix("http://testserver")).json() == card
