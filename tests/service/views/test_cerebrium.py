"""Tests of the wire of Cerebrium's command line, request by request."""
from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.database.tables import Job
from service.intake.zip_directory import BadArchive
from service.keys import Caller
from service.services import Services
from service.views.cerebrium_archive import LARGEST_CONFIG, parse_config

ASKED = {"name": "my-dog", "hf_model_path": "runwayml/stable-diffusion-v1-5", "hardware": "A10", "init_debug": False, "log_level": "INFO"}
CONFIG = """
training_type: diffuser
name: my-dog
api_key: a-secret
hf_model_path: runwayml/stable-diffusion-v1-5
train_prompt: a photo of a sdf dog
training_args:
  learning_rate: 5e-4
  max_train_steps: 3
  num_validation_images: 2
"""


@pytest.fixture
def raw(app: FastAPI, key: str) -> TestClient:
    """With the raw key, and JSON that no header announces."""
    return TestClient(app, headers={"Authorization": key, "ContentType": "application/json"})


def send(client: TestClient, path: str, body: Any, method: str = "POST") -> Any:
    answer = client.request(method, path, content=json.dumps(body))
    assert answer.status_code == 200, answer.text
    return answer.json()


def archive(config: str | None = CONFIG) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        if config is not None:
            file.writestr("finetune_config.yaml", config)
        file.writestr("dataset.json", '{"num_images": 1, "image_names": ["a.png"]}')
        file.writestr("dataset/trainingData/a.png", b"a picture")
    return packed.getvalue()


def put(client: TestClient, made: dict[str, str], content: bytes) -> int:
    path = urlsplit(made["uploadUrl"]).path
    return client.put(path, content=content, headers={"Content-Type": "application/zip"}).status_code


def test_the_upload_starts_the_job(raw: TestClient, services: Services, caller: Caller) -> None:
    made = send(raw, "/train", ASKED)
    assert set(made) == {"uploadUrl", "jobId"}
    assert send(raw, "/job-logs", {"jobId": made["jobId"]}) == {"status": "pending", "trainingLogs": []}
    assert put(raw, made, archive()) == 200
    job = services.board.get(caller.project_id, made["jobId"])
    assert (job.state, job.name) == ("queued", "my-dog")
    assert (job.resolved or {})["max_train_steps"] == 3 and (job.resolved or {})["method"] == "lora"
    assert "api_key" not in job.inputs and "a-secret" not in json.dumps(job.resolved)
    assert put(raw, made, archive()) == 409


def test_the_jobs_are_listed_and_their_logs_are_whole_lines(raw: TestClient, services: Services, drive: Callable[..., Job]) -> None:
    made = [send(raw, "/train", {**ASKED, "name": f"dog-{number}"}) for number in range(2)]
    assert put(raw, made[0], archive()) == 200
    drive(made[0]["jobId"], to="training")
    stages = services.settings.jobs_dir / made[0]["jobId"] / "stages"
    stages.mkdir(parents=True)
    (stages / "training.log").write_text("step 1\nstep 2\nste", encoding="utf-8")
    assert send(raw, "/job-logs", {"jobId": made[0]["jobId"]}) == {"status": "running", "trainingLogs": ["step 1\nstep 2\n"]}
    listed = send(raw, "/jobs", {})["trainingJobArr"]
    assert [(job["id"], job["name"], job["status"]) for job in listed] == [
        (made[0]["jobId"], "dog-0", "running"), (made[1]["jobId"], "dog-1", "pending"),
    ]  # fmt: skip
    assert set(listed[0]) == {"id", "name", "projectId", "createdAt", "status"}


def test_the_model_is_handed_over_and_deleted(raw: TestClient, services: Services, drive: Callable[..., Job], tmp_path: Any) -> None:
    made = send(raw, "/train", ASKED)
    put(raw, made, archive())
    assert raw.post("/download-model", content=json.dumps({"jobId": made["jobId"]})).status_code == 409
    (tmp_path / "output.zip").write_bytes(b"PK result")
    key = services.store.save(f"jobs/{made['jobId']}/output.zip", tmp_path / "output.zip").key
    drive(made["jobId"], output={"files": [{"name": "output.zip", "key": key}]})
    url = send(raw, "/download-model", {"jobId": made["jobId"]})["message"]
    assert TestClient(raw.app).get(urlsplit(url).path).content == b"PK result"
    assert send(raw, "/delete-model", {"name": "my-dog"}, "DELETE") == {"success": True}
    assert raw.post("/download-model", content=json.dumps({"jobId": made["jobId"]})).status_code == 404
    assert raw.request("DELETE", "/delete-model", content=json.dumps({"name": "my-dog"})).status_code == 404


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(None), "the archive has no finetune_config.yaml"),
        (b"no zip", "zip"),
        (archive(CONFIG.replace("max_train_steps: 3", "max_train_steps: 0")), "training_args.max_train_steps: 0 is not between"),
        (archive(CONFIG.replace("runwayml/", "nobody/")), "is not registered here"),
        (archive("- a\n- b\n"), "no table"),
    ],
    ids=["no configuration", "no zip", "wrong value", "unknown model", "a list"],
)
def test_what_cannot_be_trained_fails_and_says_why(content: bytes, reason: str, raw: TestClient) -> None:
    made = send(raw, "/train", ASKED)
    assert put(raw, made, content) == 200
    told = send(raw, "/job-logs", {"jobId": made["jobId"]})
    assert told["status"] == "failed" and reason in told["trainingLogs"][-1] and told["trainingLogs"][-1].endswith("\n")


def test_an_archive_that_nobody_told_of_is_found(raw: TestClient, services: Services, tmp_path: Any) -> None:
    made = send(raw, "/train", ASKED)
    (tmp_path / "input.zip").write_bytes(archive())
    services.store.save(f"jobs/{made['jobId']}/input.zip", tmp_path / "input.zip")
    send(raw, "/job-logs", {"jobId": made["jobId"]})
    assert services.board.get(services.keys.project("default"), made["jobId"]).state == "queued"


def test_a_repeated_request_is_one_job(raw: TestClient) -> None:
    assert send(raw, "/train", ASKED)["jobId"] == send(raw, "/train", ASKED)["jobId"]
    assert send(raw, "/train", {**ASKED, "name": "other"})["jobId"] != send(raw, "/train", ASKED)["jobId"]


@pytest.mark.parametrize("path", ["/job-logs", "/download-model"])
def test_jobs_of_others_are_not_found(path: str, raw: TestClient, stranger: TestClient) -> None:
    job_id = send(raw, "/train", ASKED)["jobId"]
    answer = stranger.post(path, content=json.dumps({"jobId": job_id}))
    assert (answer.status_code, answer.json()["message"]) == (404, f"there is no job {job_id}")
    assert send(stranger, "/jobs", {}) == {"trainingJobArr": []}


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"name": 1}', b'{"name": "../x", "hf_model_path": "a/b"}', b""])
def test_bodies_that_are_none(body: bytes, raw: TestClient) -> None:
    answer = raw.post("/train", content=body)
    assert answer.status_code in (400, 422) and answer.json()["message"]


@pytest.mark.parametrize(
    "content",
    [b"a: &a [1]\nb: *a\n", b"a: !!python/object/apply:os.system [ls]", b"[" * LARGEST_CONFIG, b"- " * 30_000, b"\xff\xfe\x00", b"a: 2020-99-99", b"1"],
)
def test_no_configuration_does_more_than_hold_values(content: bytes) -> None:
    assert len(content) <= LARGEST_CONFIG
    with pytest.raises(BadArchive):
        parse_config(content)
