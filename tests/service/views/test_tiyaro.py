"""Tests of Tiyaro's GraphQL API, with the requests that its document shows and with gql."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gql import Client, GraphQLRequest, gql
from gql.transport import Transport
from graphql import ExecutionResult, build_schema, lexicographic_sort_schema, print_schema

import service.views
from service.database.tables import Job, Model, Version
from service.jobs.board import JobBoard
from service.services import Services
from service.views.graphql import schema

NAMES = {"new": ("startTrainingJob", "getTrainedModels"), "old": ("startRetrainingJob", "getRetrainedModels")}
INPUT = '{jobType: dreambooth, dreamboothInput: {name: "milky", version: "1", datasetS3ObjName: "milkyway.zip", class_prompt: "a dog", \
instance_prompt: "a mky dog", max_train_steps: 3, learning_rate: 1e-5, vae: null}}'
SENT = {
    "name": "milky", "version": "1", "datasetS3ObjName": "milkyway.zip", "class_prompt": "a dog", "instance_prompt": "a mky dog",
    "vae": None, "max_train_steps": 3, "learning_rate": 1e-5,
}  # fmt: skip


@pytest.fixture
def raw(app: FastAPI, key: str) -> TestClient:
    """With the raw key, as this API's clients send it."""
    return TestClient(app, headers={"authorization": key})


def ask(client: TestClient, query: str, **variables: Any) -> dict[str, Any]:
    answer = client.request("POST", "/graphql", json={"variables": variables, "query": query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def data(client: TestClient, query: str, **variables: Any) -> Any:
    answer = ask(client, query, **variables)
    assert "errors" not in answer, answer
    return next(iter(answer["data"].values()))


def errors(client: TestClient, query: str, **variables: Any) -> list[tuple[str, str]]:
    return [(error["errorType"], error["message"]) for error in ask(client, query, **variables)["errors"]]


def new_job(client: TestClient) -> str:
    return str(data(client, "mutation { newJobID(jobType: dreambooth) }"))


def upload(client: TestClient, job_id: str, name: str = "milkyway.zip") -> int:
    url = data(client, "query($id: String, $n: String) { getJobInputURL(jobID: $id, objName: $n) }", id=job_id, n=name)
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("http", "testserver")
    return client.put(parts.path, content=b"PK\x03\x04 an archive", headers={"Content-Type": "application/octet-stream"}).status_code


def status_of(client: TestClient, job_id: str) -> Any:
    return data(client, f'query {{getJobStatus(jobID: "{job_id}") {{statusEnum errMsg created finished jobInput}}}}')


def started(client: TestClient, start: str = "startTrainingJob") -> str:
    job_id = new_job(client)
    assert upload(client, job_id) == 200
    assert data(client, f'mutation {{ {start}(jobID: "{job_id}", input: {INPUT}) }}') == job_id
    return job_id


def test_the_schema_is_the_documented_one() -> None:
    documented = (Path(service.views.__file__).parent / "tiyaro.graphql").read_text(encoding="utf-8")
    ours = build_schema(schema.as_str())
    assert print_schema(lexicographic_sort_schema(ours)) == print_schema(lexicographic_sort_schema(build_schema(documented)))


@pytest.mark.parametrize("generation", NAMES)
def test_the_flow_of_the_document(generation: str, raw: TestClient, services: Services, drive: Callable[..., Job]) -> None:
    start, trained = NAMES[generation]
    job_id = new_job(raw)
    models = f'query {{ {trained}(jobID: "{job_id}") {{ vendor version name url modelCard }} }}'
    assert status_of(raw, job_id)["statusEnum"] == "notfound"
    assert upload(raw, job_id) == 200
    assert data(raw, f'mutation {{ {start}(jobID: "{job_id}", input: {INPUT}) }}') == job_id
    now = status_of(raw, job_id)
    assert (now["statusEnum"], now["errMsg"], now["finished"]) == ("running", None, None)
    assert json.loads(now["jobInput"]) == {"jobType": "dreambooth", "dreamboothInput": SENT}
    assert data(raw, models) == []

    job = drive(job_id)
    with services.database.writing() as session:
        model = Model(
            id="m", project_id=job.project_id, owner="default", name="milky", visibility="private", details={}, run_count=0, created_at=1
        )
        session.add(model)
        session.flush()
        session.add(
            Version(
                project_id=job.project_id, id="ab12", model_id="m", job_id=job_id, label="1", cog_version="0.16", openapi_schema={},
                card={}, folder="packages/ab12", created_at=2,
            )
        )  # fmt: skip
    assert status_of(raw, job_id)["statusEnum"] == "done"
    assert status_of(raw, job_id)["finished"].endswith("Z")
    assert data(raw, models) == [
        {
            "vendor": "default", "version": "1", "name": "milky", "url": "http://testserver/v1/ent/default/1/milky",
            "modelCard": services.card_links.link(services.keys.project("default"), "ab12"),
        }
    ]  # fmt: skip


def test_what_is_left_out_is_the_trainers_default(raw: TestClient, services: Services, caller: Any) -> None:
    job = services.board.get(caller.project_id, started(raw))
    resolved = job.resolved or {}
    assert (resolved["max_train_steps"], resolved["num_class_images"], resolved["seed"]) == (3, 50, 1337)
    assert (job.name, resolved["model"]) == ("milky", "runwayml/stable-diffusion-v1-5")


def test_a_job_that_was_started_is_started_once(raw: TestClient, board_of: JobBoard, caller: Any) -> None:
    job_id = started(raw)
    before = board_of.get(caller.project_id, job_id)
    other = INPUT.replace("milky", "another")
    assert data(raw, f'mutation {{ startTrainingJob(jobID: "{job_id}", input: {other}) }}') == job_id
    after = board_of.get(caller.project_id, job_id)
    assert (after.name, after.queued_at) == (before.name, before.queued_at)
    query = f'query {{ getJobInputURL(jobID: "{job_id}", objName: "milkyway.zip") }}'
    assert errors(raw, query) == [("ConflictException", "jobID: this job has been started, and takes no pictures any more; make a new one")]


@pytest.fixture
def board_of(services: Services) -> JobBoard:
    return services.board


def test_failed_and_canceled_jobs_say_why(raw: TestClient, board_of: JobBoard, caller: Any, drive: Callable[..., Job]) -> None:
    failed, canceled = started(raw), started(raw)
    drive(failed, to="training")
    board_of.advance(failed, "training", "failed", error="out of memory")
    board_of.cancel(caller.project_id, canceled, "you")
    assert [(status_of(raw, job)["statusEnum"], status_of(raw, job)["errMsg"]) for job in (failed, canceled)] == [
        ("failed", "out of memory"),
        ("failed", "canceled by you"),
    ]


def test_jobs_of_others_are_not_found(raw: TestClient, stranger: TestClient) -> None:
    job_id = started(raw)
    for asker, asked in ((raw, "unknown"), (stranger, job_id)):
        assert status_of(asker, asked) == {"statusEnum": "notfound", "errMsg": None, "created": None, "finished": None, "jobInput": None}
        assert data(asker, f'{{ getTrainedModels(jobID: "{asked}") {{ name }} }}') == []
        for query in (
            f'{{ getJobInputURL(jobID: "{asked}", objName: "a.zip") }}',
            f'mutation {{ startTrainingJob(jobID: "{asked}", input: {INPUT}) }}',
        ):
            assert errors(asker, query) == [("NotFoundException", f"there is no job {asked}")]


def test_a_job_needs_its_archive(raw: TestClient) -> None:
    job_id = new_job(raw)
    start = f'mutation {{ startTrainingJob(jobID: "{job_id}", input: {INPUT}) }}'
    field = "input.dreamboothInput.datasetS3ObjName: "
    [(kind, message)] = errors(raw, start)
    assert kind == "ValidationException" and message.startswith(field + "getJobInputURL was not asked")
    data(raw, f'{{ getJobInputURL(jobID: "{job_id}", objName: "milkyway.zip") }}')
    assert errors(raw, start)[0][1].startswith(field + "nothing was uploaded")
    assert upload(raw, job_id, "other.zip") == 200
    assert errors(raw, start)[0][1].startswith(field + "getJobInputURL was not asked")
    assert upload(raw, job_id) == 200
    assert data(raw, start) == job_id


def test_every_mistake_in_the_inputs_is_named(raw: TestClient) -> None:
    job_id = new_job(raw)
    wrong = INPUT.replace("max_train_steps: 3", 'max_train_steps: 0, resolution: 65, model: "nobody/nothing"')
    [(kind, message)] = errors(raw, f'mutation {{ startTrainingJob(jobID: "{job_id}", input: {wrong}) }}')
    assert kind == "ValidationException"
    assert "input.dreamboothInput.max_train_steps: 0" in message and "input.dreamboothInput.resolution: 65" in message
    model = INPUT.replace("max_train_steps: 3", 'model: "nobody/nothing"')
    [(_, message)] = errors(raw, f'mutation {{ startTrainingJob(jobID: "{job_id}", input: {model}) }}')
    assert message.startswith('input.dreamboothInput.model: "nobody/nothing" is not registered here')
    [(_, message)] = errors(raw, f'mutation {{ startTrainingJob(jobID: "{job_id}") }}')
    assert message == "input: a job needs dreamboothInput"


def test_who_sends_no_good_key_is_told_as_appsync_tells(app: FastAPI, services: Services) -> None:
    nobody = TestClient(app)
    for headers in ({}, {"authorization": "tadpole_a_b"}):
        answer = nobody.post("/graphql", json={"query": "{ getJobStatus { errMsg } }"}, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["errors"][0]["errorType"] == "UnauthorizedException"
    reading = services.keys.create(services.keys.project("default"), "reader", ["read"])
    reader = TestClient(app, headers={"authorization": reading})
    assert errors(reader, "mutation { newJobID(jobType: dreambooth) }")[0][0] == "Unauthorized"
    assert status_of(reader, "x")["statusEnum"] == "notfound"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"query": 1}', b'{"query": "{a}", "variables": [1]}', b"[" * 100_000])
def test_bodies_that_hold_no_query(body: bytes, raw: TestClient) -> None:
    answer = raw.post("/graphql", content=body)
    assert (answer.status_code, answer.json()["errors"][0]["errorType"]) == (400, "BadRequestException")


@pytest.mark.parametrize(
    "query",
    [
        "{ " + " ".join(f'a{n}: getJobStatus(jobID: "x") {{ errMsg }}' for n in range(21)) + " }",
        "{ " + "getJobStatus { errMsg } " * 600 + "}",
        "{ getJobStatus" + " { a" * 9 + " }" * 9 + " }",
        "{ getJobStatus(jobID: " + "[" * 900 + "]" * 900 + ") { errMsg } }",
        "{ nothing }",
        "mutation { newJobID(jobType: lora) }",
    ],
    ids=["aliases", "tokens", "depth", "nested", "field", "enum"],
)
def test_queries_beyond_the_limits_are_refused(query: str, raw: TestClient) -> None:
    answer = raw.post("/graphql", json={"query": query})
    assert answer.status_code in (200, 400)
    assert {error["errorType"] for error in answer.json()["errors"]} <= {"ValidationException", "BadRequestException"}
    assert answer.json().get("data") is None


def test_text_that_no_database_takes(raw: TestClient) -> None:
    query = 'query($id: String) { getJobStatus(jobID: $id) { statusEnum } }'
    answer = raw.post("/graphql", content=json.dumps({"query": query, "variables": {"id": "\0\ud800"}}))
    told = answer.json()
    assert answer.status_code in (200, 400)
    assert (told.get("data") or {}).get("getJobStatus") == {"statusEnum": "notfound"} or told["errors"][0]["errorType"] == "BadRequestException"


class Through(Transport):
    """Carries gql's requests to the application."""

    def __init__(self, client: TestClient):
        self.client = client

    def execute(self, request: GraphQLRequest, *args: Any, **kwargs: Any) -> ExecutionResult:
        found = self.client.post("/graphql", json=request.payload).json()
        return ExecutionResult(data=found.get("data"), errors=found.get("errors"))


def test_gql_reads_the_schema_and_checks_its_queries_by_it(raw: TestClient) -> None:
    client = Client(transport=Through(raw), fetch_schema_from_transport=True)
    with client as session:
        job_id = session.execute(gql("mutation($t: JobType) { newJobID(jobType: $t) }"), variable_values={"t": "dreambooth"})["newJobID"]
        url = session.execute(gql('query($id: String) { getJobInputURL(jobID: $id, objName: "m.zip") }'), variable_values={"id": job_id})
        assert raw.put(urlsplit(url["getJobInputURL"]).path, content=b"PK").status_code == 200
        given = {"jobType": "dreambooth", "dreamboothInput": {**SENT, "datasetS3ObjName": "m.zip"}}
        start = gql("mutation($id: String, $in: JobInput) { startTrainingJob(jobID: $id, input: $in) }")
        assert session.execute(start, variable_values={"id": job_id, "in": given})["startTrainingJob"] == job_id
    assert status_of(raw, job_id)["statusEnum"] == "running"
    assert {"DreamBoothInput", "RetrainedModels"} <= set(client.schema.type_map)


def test_our_own_mistakes_stay_inside(raw: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a secret path")

    monkeypatch.setattr(services.board, "find", broken)
    assert errors(raw, '{ getJobStatus(jobID: "x") { errMsg } }') == [("InternalFailure", "the service made a mistake; its log says which")]
