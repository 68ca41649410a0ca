"""Every operation of the OpenAPI document and of GraphQL, asked with hundreds of odd requests: nothing may be a 500. A planted one is found."""
from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI, Request
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, Unsatisfiable
from pydantic import BaseModel

import service.views
from service.app import create_app
from service.jobs.board import NewJob
from service.settings import ServiceSettings
from service.trainers import OUR_NAME, OUR_VERSION
from tests.service_real.real_service import BASE, wait_for

EXAMPLES = 200
MANY = 10**9  # requests: no limit of the service is what stands in the way here
METHODS = ("get", "post", "put", "patch", "delete")
RAW = ("/graphql", "/train", "/jobs", "/job-logs", "/download-model", "/delete-model")  # take JSON that their declaration does not describe
ATTACK = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    report_multiple_bugs=False,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["name", "hf_model_path", "jobId", "query", "variables", "operationName", "log_level", "hardware"])


class Found(Exception):
    """A request that the service failed at."""


@dataclasses.dataclass
class Target:
    """A service that listens, with one of everything in it; its background does not run."""

    app: FastAPI
    url: str
    headers: dict[str, str]
    known: dict[str, str]  # path parameters that lead to something

    def judge(self, answer: Any, what: str) -> None:
        if answer.status_code >= 500:
            raise Found(f"{what}: {answer.status_code} {answer.text[:500]}")


@contextmanager
def listening(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_for(lambda: server.started, 30, "the service to listen")
    yield
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        data = tmp_path / "data"
        data.mkdir()
        (data / "base.safetensors").touch()
        (data / "models.toml").write_text(f'[models."{BASE}"]\npath = "base.safetensors"\n', encoding="utf-8")
        app = create_app(
            ServiceSettings(data_dir=data, public_url=url, creates_per_minute=MANY, calls_per_minute=MANY, queued_jobs_per_project=MANY)
        )
        with listening(app, listener):
            yield populated(app, url)
        app.state.services.database.close()


def populated(app: FastAPI, url: str) -> Target:
    """With a training that was canceled, a file, and a model."""
    services = app.state.services
    key = services.keys.create(services.keys.project("default"), "fuzz")
    headers = {"Authorization": f"Bearer {key}"}
    caller = services.keys.check(key)
    job = services.board.create(caller, NewJob("tiyaro", name="frog"))
    services.board.cancel(caller.project_id, job.id, "test")  # the stream of its log has an end
    with httpx.Client(base_url=url, headers=headers) as client:
        file_id = client.post("/v1/files", files={"content": ("a.zip", b"PK")}).json()["id"]
        assert client.post("/v1/models", json={"owner": "default", "name": "mine"}).status_code == 201
        inputs = {"instance_prompt": "a sks frog", "class_prompt": "a frog", "instance_data": "https://example.org/a.zip"}
        path = f"/v1/models/{OUR_NAME}/versions/{OUR_VERSION}/trainings"
        training = client.post(path, json={"input": inputs, "destination": "default/mine"})
        assert training.status_code == 201, training.text
    owner, _, name = OUR_NAME.partition("/")
    known = {"job_id": job.id, "training_id": training.json()["id"], "file_id": file_id, "owner": owner, "name": name, "version": OUR_VERSION}
    return Target(app, url, headers, known)


def operations(target: Target) -> list[Any]:
    schema = schemathesis.openapi.from_dict(target.app.openapi())
    return [found.ok() for found in schema.get_all_operations()]


def declared(target: Target, operation: Any) -> dict[str, Any]:
    return target.app.openapi()["paths"][operation.path][operation.method.lower()]


def attack(target: Target, operation: Any) -> tuple[int, str | None]:
    """How many requests were sent, and what the first that failed was."""
    places = declared(target, operation).get("parameters", [])
    known = {place["name"]: target.known[place["name"]] for place in places if place["in"] == "path" and place["name"] in target.known}
    ways = [operation.as_strategy()]
    if known:
        ways.append(operation.as_strategy(path_parameters=known))
    if declared(target, operation).get("requestBody"):
        ways.append(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    sent = 0

    @ATTACK
    @given(case=st.one_of(*ways))
    def send(case: Any) -> None:
        nonlocal sent
        sent += 1
        answer = case.call(base_url=target.url, headers=target.headers, timeout=60)
        target.judge(answer, f"{operation.method.upper()} {operation.path}: {case.path_parameters} {case.query} {case.body!r}")

    return _outcome(send, lambda: sent)


def attack_raw(target: Target, path: str, method: str) -> tuple[int, str | None]:
    """The same with bodies that are JSON, nearly JSON, or none."""
    bodies = st.one_of(
        st.dictionaries(FIELDS | st.text(max_size=8), JSON, max_size=6).map(_as_json),
        JSON.map(_as_json),
        st.binary(max_size=200),
        st.integers(1, 3000).map(lambda depth: b"[" * depth + b"]" * depth),
    )
    sent = 0

    with httpx.Client(base_url=target.url, headers=target.headers, timeout=60) as client:

        @ATTACK
        @given(body=bodies)
        def send(body: bytes) -> None:
            nonlocal sent
            sent += 1
            target.judge(client.request(method, path, content=body), f"{method} {path}: {body[:500]!r}")

        return _outcome(send, lambda: sent)


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _outcome(send: Callable[[], None], sent: Callable[[], int]) -> tuple[int, str | None]:
    try:
        send()
    except Found as found:
        return sent(), str(found)
    except Flaky as found:  # the second time it was another state that the request met
        return sent(), f"once: {getattr(found, 'exceptions', found)}"
    except (Unsatisfiable, SkipTest):
        return sent(), "nothing could be made up for it"
    return sent(), None


def has_inputs(target: Target, operation: Any) -> bool:
    return bool(declared(target, operation).get("parameters") or declared(target, operation).get("requestBody"))


@pytest.mark.timeout(2400)
def test_no_operation_fails(target: Target) -> None:
    everything = operations(target)
    described = {(path, method) for path, methods in target.app.openapi()["paths"].items() for method in methods if method in METHODS}
    assert {(operation.path, operation.method.lower()) for operation in everything} == described and len(described) > 20
    outcomes = {operation.label: attack(target, operation) for operation in everything}
    assert {label: failure for label, (_, failure) in outcomes.items() if failure} == {}
    asked = {operation.label: outcomes[operation.label][0] for operation in everything if has_inputs(target, operation)}
    assert {label: count for label, count in asked.items() if count < EXAMPLES} == {}


@pytest.mark.timeout(1200)
def test_no_body_that_is_not_described_fails(target: Target) -> None:
    paths = target.app.openapi()["paths"]
    undescribed = [path for path, methods in paths.items() for method, found in methods.items() if method == "post" and "{" not in path and "requestBody" not in found]
    assert set(undescribed) <= set(RAW)  # a new one belongs into the list
    outcomes = {path: attack_raw(target, path, method.upper()) for path in RAW for method in paths[path] if method in METHODS}
    assert {path: failure for path, (_, failure) in outcomes.items() if failure} == {}
    assert {path: count for path, (count, _) in outcomes.items() if count < EXAMPLES} == {}


@pytest.mark.timeout(1200)
def test_no_query_fails(target: Target) -> None:
    """Queries that the schema allows, with all arguments made up."""
    schema = schemathesis.graphql.from_path(Path(service.views.__file__).parent / "tiyaro.graphql")
    fields = [found.ok() for found in schema.get_all_operations()]
    assert len(fields) == 7
    failures: dict[str, str] = {}
    with httpx.Client(base_url=target.url, headers=target.headers, timeout=60) as client:
        for field in fields:
            sent, failure = attack_field(client, target, field)
            if failure or (sent < EXAMPLES and "newJobID" not in field.label):  # of which there is no other
                failures[field.label] = failure or f"only {sent} queries"
    assert failures == {}


def attack_field(client: httpx.Client, target: Target, field: Any) -> tuple[int, str | None]:
    sent = 0

    @ATTACK
    @given(case=field.as_strategy())
    def send(case: Any) -> None:
        nonlocal sent
        sent += 1
        answer = client.post("/graphql", json={"query": case.body})
        target.judge(answer, case.body)
        kinds = [error["errorType"] for error in answer.json().get("errors", [])]
        if "InternalFailure" in kinds:
            raise Found(f"{case.body}: {answer.text[:500]}")

    return _outcome(send, lambda: sent)


class Planted(BaseModel):
    name: str
    count: int = 1


def test_a_planted_500_is_found(target: Target) -> None:
    """One in the path, one in the body, one in a body that is not described: otherwise the tests above prove nothing."""
    @target.app.get("/planted/{number}")
    def in_path(number: int) -> float:
        return 1 / (0 if number < -1000 else 1)

    @target.app.post("/planted")
    def in_body(body: Planted) -> int:
        return {"": 0}[body.name[3:]]

    @target.app.post("/planted-raw")
    async def in_raw_body(request: Request) -> int:
        return len(json.loads(await request.body()))

    target.app.openapi_schema = None  # the document is made once, and this is new
    planted = [operation for operation in operations(target) if operation.path.startswith("/planted/") or operation.path == "/planted"]
    assert len(planted) == 2
    for operation in planted:
        sent, failure = attack(target, operation)
        assert failure and ": 500 " in failure and sent <= EXAMPLES
    assert ": 500 " in (attack_raw(target, "/planted-raw", "POST")[1] or "")


def test_a_planted_failure_of_graphql_is_found(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(target.app.state.services.board, "find", broken)
    schema = schemathesis.graphql.from_path(Path(service.views.__file__).parent / "tiyaro.graphql")
    (status,) = [found.ok() for found in schema.get_all_operations() if "getJobStatus" in found.ok().label]
    with httpx.Client(base_url=target.url, headers=target.headers, timeout=60) as client:
        assert "InternalFailure" in (attack_field(client, target, status)[1] or "")
