"""Tests of Replicate's experimental DreamBooth API, with the request that its document shows."""
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.assembly import own_content
from service.database.tables import Job, WebhookMessage
from service.keys import Caller
from service.problems import not_found
from service.services import Services
from service.trainers import OUR_VERSION
from service.views import dreambooth

BODY = {
    "input": {
        "instance_prompt": "a photo of a cjw person", "class_prompt": "a photo of a person",
        "instance_data": "https://example.com/person.zip", "max_train_steps": 2000,
    },
    "trainer_version": OUR_VERSION,
    "template_version": "0f5cfc3e2a0e86dbd141057501ba5196c7dbea94c45dab4894e6ff7d6a2cc324",
    "model": "default/mymodel",
    "notes": "notes about this dreambooth training",
    "webhook_completed": "https://example.com/dreambooth-webhook?of=me",
}  # fmt: skip


@pytest.mark.parametrize("root", ["/v1", "/dreambooth/v1"])
def test_the_request_of_the_document(root: str, client: TestClient, services: Services, drive: Callable[..., Job]) -> None:
    answer = client.post(f"{root}/trainings", json=BODY)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    expected = {key: BODY[key] for key in ("input", "model", "notes", "webhook_completed", "trainer_version", "template_version")}
    assert {key: made[key] for key in expected} == expected
    assert (made["status"], made["version"], made["urls"]["get"]) == ("starting", None, f"http://testserver{root}/trainings/{made['id']}")
    assert client.get(f"{root}/trainings/{made['id']}").json() == made
    assert [found["id"] for found in client.get(f"{root}/trainings").json()["results"]] == [made["id"]]
    assert client.get("/v1/models/default/mymodel").status_code == 200
    assert "is no template here; there are" in drive(made["id"]).warnings[-1]
    with services.database.reading() as session:
        [message] = session.scalars(select(WebhookMessage)).all()
    told = json.loads(message.body)
    assert message.url == BODY["webhook_completed"]
    assert {"created_at", "error", "id", "input", "logs", "metrics", "model", "notes", "status", "webhook_completed", "version"} <= set(told)
    assert (told["status"], told["id"]) == ("succeeded", made["id"]) and told["metrics"]["predict_time"] >= 0


def test_only_input_and_model_are_needed_and_null_is_nothing(client: TestClient) -> None:
    answer = client.post("/v1/trainings", json={"input": BODY["input"], "model": "default/other", "webhook": None, "notes": None})
    assert (answer.status_code, answer.json()["webhook_completed"]) == (201, None)


def test_two_requests_at_once_may_name_the_same_new_model(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def found_by_neither(*_: object) -> None:
        monkeypatch.undo()
        assert client.post("/v1/trainings", json=BODY).status_code == 201  # the other one is faster
        raise not_found("model")

    monkeypatch.setattr(dreambooth, "find_model", found_by_neither)
    answer = client.post("/v1/trainings", json=BODY)
    assert answer.status_code == 201, answer.text
    assert len(client.get("/v1/trainings").json()["results"]) == 2
    assert len(client.get("/v1/models").json()["results"]) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "somebody/else"}, "model"),
        ({"model": "default/.."}, "model"),
        ({"trainer_version": "unknown"}, "trainer_version"),
        ({"webhook_completed": "file:///etc/passwd"}, "webhook_completed"),
        ({"input": {"class_prompt": "a", "instance_prompt": "b"}}, "input.instance_data"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(change: dict[str, Any], field: str, client: TestClient) -> None:
    answer = client.post("/v1/trainings", json={**BODY, **change})
    assert (answer.status_code, [wrong["field"] for wrong in answer.json()["invalid_fields"]]) == (422, [field])
    assert client.get("/v1/trainings").json()["results"] == client.get("/v1/models").json()["results"] == []


@pytest.mark.parametrize("root", ["/v1", "/dreambooth/v1"])
def test_an_archive_is_uploaded_and_read_by_its_project_only(root: str, client: TestClient, services: Services, caller: Caller) -> None:
    told = client.post(f"{root}/upload/data.zip").json()
    assert set(told) == {"upload_url", "serving_url"}
    put = client.put(urlsplit(told["upload_url"]).path, content=b"PK pictures", headers={"Content-Type": "application/zip"})
    assert put.status_code == 200
    assert client.get(urlsplit(told["serving_url"]).path).content == b"PK pictures"
    url, database, store = services.settings.url, services.database, services.store
    content = own_content(url, database, store, caller.project_id)(told["serving_url"])
    assert content is not None and content.read() == b"PK pictures"
    content.close()
    assert own_content(url, database, store, services.keys.project("other"))(told["serving_url"]) is None
    assert client.post("/v1/trainings", json={**BODY, "input": {**BODY["input"], "instance_data": told["serving_url"]}}).status_code == 201
    assert client.get("/v1/files").json()["results"] == []
    assert client.post(f"{root}/upload/data.tar").status_code == 422


def test_the_two_apis_are_told_apart(client: TestClient, stranger: TestClient) -> None:
    made = client.post("/v1/trainings", json=BODY).json()
    assert client.get(f"/v1/trainings/{made['id']}").json()["notes"] == BODY["notes"]
    assert stranger.get(f"/dreambooth/v1/trainings/{made['id']}").status_code == 404
    assert client.post(f"/dreambooth/v1/trainings/{made['id']}/cancel").json()["status"] == "canceled"
