"""Tests of Replicate's official API: the shapes that its clients parse, the requests that they send."""
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.database.tables import Job, Model, Version, WebhookMessage
from service.services import Services
from service.trainers import OUR_NAME, OUR_VERSION

INPUT = {"instance_prompt": "a photo of a cjw person", "class_prompt": "a photo of a person", "instance_data": "https://example.com/p.zip"}
TRAIN = f"/v1/models/{OUR_NAME}/versions/{OUR_VERSION}/trainings"


@pytest.fixture
def model(client: TestClient) -> str:
    answer = client.post("/v1/models", json={"owner": "default", "name": "mine", "visibility": "private", "hardware": "cpu"})
    assert answer.status_code == 201, answer.text
    return "default/mine"


def train(client: TestClient, **more: Any) -> Any:
    answer = client.post(TRAIN, json={"input": INPUT, "destination": "default/mine", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_training_has_what_its_clients_parse(client: TestClient, model: str) -> None:
    made = train(client)
    address = f"http://testserver/v1/trainings/{made['id']}"
    assert made == client.get(f"/v1/trainings/{made['id']}").json()
    assert made == {
        "id": made["id"], "model": OUR_NAME, "version": OUR_VERSION, "destination": model, "status": "starting", "input": INPUT,
        "output": None, "logs": "", "error": None, "created_at": made["created_at"], "started_at": None, "completed_at": None,
        "urls": {"get": address, "cancel": f"{address}/cancel"}, "metrics": {}, "source": "api",
    }  # fmt: skip


def test_the_states_of_a_training(client: TestClient, model: str, services: Services, drive: Callable[..., Job], tmp_path: Any) -> None:
    training_id = train(client)["id"]
    project_id = drive(training_id, to="training").project_id
    assert client.get(f"/v1/trainings/{training_id}").json()["status"] == "processing"
    (tmp_path / "output.zip").write_bytes(b"PK weights")
    key = services.store.save(f"jobs/{training_id}/output.zip", tmp_path / "output.zip").key
    drive(training_id, output={"files": [{"name": "output.zip", "key": key}]})
    done = client.get(f"/v1/trainings/{training_id}").json()
    assert done["status"] == "succeeded" and set(done["output"]) == {"weights"}
    assert set(done["metrics"]) == {"predict_time", "total_time"} and done["completed_at"].endswith("Z")
    assert client.get(done["output"]["weights"].removeprefix("http://testserver")).content == b"PK weights"
    with services.database.writing() as session:
        model_id = session.scalars(select(Model.id)).one()
        session.add(
            Version(
                project_id=project_id, id="ab12", model_id=model_id, job_id=training_id, cog_version="0.16", openapi_schema={"a": 1},
                card={"name": "mine"}, folder="packages/ab12", created_at=2,
            )
        )  # fmt: skip
    assert client.get(f"/v1/trainings/{training_id}").json()["output"]["version"] == "default/mine:ab12"
    version = client.get("/v1/models/default/mine/versions/ab12").json()
    assert (version["id"], version["cog_version"], version["openapi_schema"]) == ("ab12", "0.16", {"a": 1})
    assert client.get("/v1/models/default/mine/versions").json()["results"] == [version]
    assert client.get("/v1/models/default/mine").json()["latest_version"] == version
    card = client.get("/v1/models/default/mine/versions/ab12/card").json()
    assert (card["name"], card["url"]) == ("mine", "http://testserver/v1/ent/default/ab12/mine")
    assert client.delete("/v1/models/default/mine").status_code == 409
    assert client.delete("/v1/models/default/mine/versions/ab12").status_code == 204
    assert client.delete("/v1/models/default/mine/versions/ab12").status_code == 404
    assert client.delete("/v1/models/default/mine").status_code == 204


def test_cancel_answers_with_the_training_and_can_be_repeated(client: TestClient, model: str) -> None:
    training_id = train(client)["id"]
    answers = [client.post(f"/v1/trainings/{training_id}/cancel").json() for _ in range(2)]
    assert answers[0] == answers[1] and answers[0]["status"] == "canceled"


def test_pages_lead_to_one_another(client: TestClient, model: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [train(client)["id"] for _ in range(3)]
    whole = services.board.page
    monkeypatch.setattr(services.board, "page", lambda *a, **k: whole(*a, **{**k, "limit": 2}))
    first = client.get("/v1/trainings").json()
    assert first["previous"] is None and first["next"].startswith("http://testserver/v1/trainings?cursor=")
    second = client.get(first["next"].removeprefix("http://testserver")).json()
    assert [found["id"] for found in first["results"] + second["results"]] == made[::-1]
    assert second["next"] is None


def test_a_counted_retry_gets_the_training_of_the_first_try(client: TestClient, model: str) -> None:
    first = train(client)
    again = client.post(TRAIN, json={"input": INPUT, "destination": model}, headers={"x-stainless-retry-count": "1"}).json()
    other = client.post(TRAIN, json={"input": {**INPUT, "seed": 2}, "destination": model}, headers={"x-stainless-retry-count": "1"}).json()
    assert again["id"] == first["id"] and other["id"] != first["id"]
    assert train(client)["id"] != first["id"]  # a first try is a training of its own


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"input": {**INPUT, "instance_data": {}}}, 422, "input.instance_data"),
        ({"input": {**INPUT, "max_train_steps": 0}}, 422, "input.max_train_steps"),
        ({"input": {**INPUT, "instance_data": "ftp://example.com/a.zip"}}, 422, "input.instance_data"),
        ({"webhook": "https://me:secret@example.com/"}, 422, "webhook"),
        ({"webhook": "https://example.com/", "webhook_events_filter": ["never"]}, 422, "webhook_events_filter.0"),
        ({"destination": "default/other"}, 404, None),
        ({"input": []}, 422, "input"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], status: int, field: str | None, client: TestClient, model: str) -> None:
    answer = client.post(TRAIN, json={"input": INPUT, "destination": model, **change})
    told = answer.json()
    assert (answer.status_code, told["status"]) == (status, status) and told["title"] and told["detail"]
    assert [wrong["field"] for wrong in told.get("invalid_fields", [])] == ([field] if field else [])
    assert client.get("/v1/trainings").json()["results"] == []


def test_an_unknown_trainer_is_not_found(client: TestClient, model: str) -> None:
    answer = client.post("/v1/models/a/b/versions/c/trainings", json={"input": INPUT, "destination": model})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no trainer a/b:c")


def test_nobody_sees_what_is_of_others(client: TestClient, model: str, stranger: TestClient) -> None:
    training_id = train(client)["id"]
    file_id = client.post("/v1/files", files={"content": ("a.zip", b"PK")}).json()["id"]
    for path in (f"trainings/{training_id}", "models/default/mine", f"files/{file_id}", f"files/{file_id}/download"):
        assert stranger.get(f"/v1/{path}").status_code == 404
    assert stranger.post(f"/v1/trainings/{training_id}/cancel").status_code == 404
    assert stranger.delete(f"/v1/files/{file_id}").status_code == 404
    assert stranger.delete("/v1/models/default/mine").status_code == 404
    assert [stranger.get(f"/v1/{path}").json()["results"] for path in ("trainings", "models", "files")] == [[], [], []]
    assert stranger.post("/v1/models", json={"owner": "default", "name": "mine"}).status_code == 422


def test_models_are_made_listed_and_deleted(client: TestClient, model: str) -> None:
    found = client.get("/v1/models/default/mine").json()
    assert {name: found[name] for name in ("url", "owner", "name", "visibility", "run_count", "latest_version", "default_example")} == {
        "url": "http://testserver/v1/models/default/mine", "owner": "default", "name": "mine", "visibility": "private", "run_count": 0,
        "latest_version": None, "default_example": None,
    }  # fmt: skip
    assert client.get("/v1/models").json()["results"] == [found]
    assert client.post("/v1/models", json={"owner": "default", "name": "mine"}).status_code == 409
    assert client.post("/v1/models", json={"owner": "default", "name": "../x"}).status_code == 422
    assert client.delete("/v1/models/default/mine").status_code == 204
    assert client.get("/v1/models/default/mine").status_code == 404


@pytest.mark.parametrize("metadata", [{"data": {"metadata": '{"a": 1}'}}, {"blob": ("blob", b'{"a": 1}', "application/json")}])
def test_a_file_is_kept_and_told(metadata: dict[str, Any], client: TestClient) -> None:
    content = b"PK an archive"
    files = {"content": ("p.zip", content, "application/zip"), **({"metadata": metadata["blob"]} if "blob" in metadata else {})}
    answer = client.post("/v1/files", files=files, data=metadata.get("data"))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    digests = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    assert made == {
        "id": made["id"], "name": "p.zip", "content_type": "application/zip", "size": len(content), "etag": made["etag"],
        "checksums": digests, "metadata": {"a": 1}, "created_at": made["created_at"], "expires_at": made["expires_at"],
        "urls": {"get": f"http://testserver/v1/files/{made['id']}"},
    }  # fmt: skip
    assert client.get(f"/v1/files/{made['id']}").json() == made
    assert client.get("/v1/files").json()["results"] == [made]
    assert client.get(f"/v1/files/{made['id']}/download").content == content
    assert client.delete(f"/v1/files/{made['id']}").status_code == 204
    assert client.get(f"/v1/files/{made['id']}").status_code == 404


def test_metadata_is_an_object(client: TestClient) -> None:
    answer = client.post("/v1/files", files={"content": ("p.zip", b"PK")}, data={"metadata": "[1]"})
    assert (answer.status_code, answer.json()["invalid_fields"][0]["field"]) == (422, "metadata")


def test_the_account_the_hardware_and_the_secret(client: TestClient, app: Any, services: Services) -> None:
    assert client.get("/v1/account").json() == {"type": "organization", "username": "default", "name": "default", "github_url": None}
    assert [set(entry) for entry in client.get("/v1/hardware").json()] == [{"name", "sku"}]
    kind, secret = client.get("/v1/webhooks/default/secret").json()["key"].split("_")
    assert kind == "whsec" and len(base64.b64decode(secret, validate=True)) == 24
    reading = services.keys.create(services.keys.project("default"), "reader", ["read"])
    reader = TestClient(app, headers={"Authorization": f"Bearer {reading}"})
    assert reader.get("/v1/webhooks/default/secret").status_code == 403
    assert TestClient(app).get("/v1/account").json()["title"] == "Unauthenticated"


def test_a_webhook_has_what_get_answers(client: TestClient, model: str, services: Services, drive: Callable[..., Job]) -> None:
    training_id = train(client, webhook="https://example.com/hook?a=b", webhook_events_filter=["completed"])["id"]
    drive(training_id)
    with services.database.reading() as session:
        [message] = session.scalars(select(WebhookMessage)).all()
    assert (message.url, message.event) == ("https://example.com/hook?a=b", "completed")
    assert json.loads(message.body) == client.get(f"/v1/trainings/{training_id}").json()
