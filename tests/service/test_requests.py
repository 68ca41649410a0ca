"""What every request meets: health, errors in one form, limits, idempotency."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import Connection, delete, event, select
from starlette.types import Message, Receive, Scope, Send

from service.database.engine import Database
from service.database.tables import IdempotencyRecord
from service.jobs.board import NewJob
from service.keys import Caller, Trainer
from service.problems import FieldMistake, Problem, invalid, not_found, route_with
from service.services import Services


@pytest.fixture
def calls(app: FastAPI) -> list[Any]:
    """What reached the routes of this test."""
    seen: list[Any] = []

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        body = await request.body()
        seen.append(body)
        return {"length": len(body), "call": len(seen)}

    @app.post("/typed")
    def typed(count: int) -> int:
        return count

    @app.post("/crash")
    def crash() -> None:
        seen.append("crash")
        raise KeyError("secret")

    @app.post("/refuse")
    def refuse() -> None:
        seen.append("refuse")
        raise invalid([FieldMistake("input.seed", "too large"), FieldMistake("input.steps", "missing")])

    @app.post("/test/jobs")
    def jobs(caller: Trainer) -> str:
        services: Services = app.state.services
        return services.board.create(caller, NewJob("replicate")).id

    return seen


def test_health(client: TestClient, app: FastAPI) -> None:
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").json() == {"ready": True}
    assert 'tadpole_jobs{state="queued"} 0' in client.get("/metrics").text


def test_a_database_that_is_gone_is_not_ready(client: TestClient, services: Services) -> None:
    services.database.close()
    services.database = Database("postgresql+psycopg://127.0.0.1:1/nothing")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "OperationalError" in answer.json()["reason"]


def test_errors_have_one_form(client: TestClient, calls: list[Any]) -> None:
    assert client.get("/nowhere").json() == {"title": "Not Found", "detail": "Not Found", "status": 404, "message": "Not Found"}
    assert client.get("/echo").status_code == 405
    answer = client.post("/typed", params={"count": "x"})
    assert answer.status_code == 422
    assert answer.json()["invalid_fields"][0]["field"] == "count"
    answer = client.post("/refuse")
    assert [entry["field"] for entry in answer.json()["invalid_fields"]] == ["input.seed", "input.steps"]
    assert answer.json()["detail"] == "input.seed: too large; input.steps: missing"


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_text_that_no_database_takes_is_the_clients_mistake(text: str, client: TestClient, app: FastAPI, caller: Caller) -> None:
    @app.post("/find")
    def find() -> bool:
        return app.state.services.board.find(caller.project_id, text) is None

    answer = client.post("/find")
    assert (answer.status_code, answer.json()["title"] if answer.status_code == 400 else answer.json()) in ((400, "Bad text"), (200, True))


def test_a_crash_tells_nothing_of_the_inside(app: FastAPI, calls: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """The server never hears of it, as it would close the connection under the client's next request."""
    answer = TestClient(app).post("/crash")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    (told,) = [record for record in caplog.records if record.name == "service"]
    assert told.getMessage() == "POST /crash failed" and told.exc_info and "secret" in str(told.exc_info[1])


def test_half_an_answer_is_cut_off(app: FastAPI) -> None:
    @app.get("/half")
    def half() -> StreamingResponse:
        def pieces() -> Iterator[str]:
            yield "one"
            raise KeyError("two")

        return StreamingResponse(pieces())

    with pytest.raises(KeyError):
        TestClient(app).get("/half")


def test_bodies_are_limited_with_and_without_a_length(client: TestClient, calls: list[Any]) -> None:
    assert client.post("/echo", content=b"x" * 2**22).json()["length"] == 2**22
    assert client.post("/echo", content=b"x" * (2**22 + 1)).status_code == 413
    pieces = (b"x" * 2**20 for _ in range(5))
    answer = client.post("/echo", content=pieces)
    assert (answer.status_code, answer.json()["detail"]) == (413, "this request is larger than 4 MiB")
    pieces = (b"x" * 2**20 for _ in range(5))
    assert client.post("/echo", content=pieces, headers={"Idempotency-Key": "a"}).status_code == 413
    assert len(calls) == 1


def test_the_same_post_is_done_once(client: TestClient, calls: list[Any]) -> None:
    first = client.post("/echo", content=b"a" * (2**21 + 7), headers={"Idempotency-Key": "k"})
    second = client.post("/echo", content=b"a" * (2**21 + 7), headers={"Idempotency-Key": "k"})
    assert first.json() == second.json() == {"length": 2**21 + 7, "call": 1}
    assert second.headers["Idempotent-Replayed"] == "true"
    assert client.post("/echo", content=b"a", headers={"Idempotency-Key": "other"}).json()["call"] == 2
    assert len(calls) == 2


def test_a_key_stands_for_one_request(client: TestClient, calls: list[Any]) -> None:
    client.post("/echo", content=b"a", headers={"Idempotency-Key": "k"})
    assert client.post("/echo", content=b"b", headers={"Idempotency-Key": "k"}).status_code == 422
    assert client.post("/echo?x=1", content=b"a", headers={"Idempotency-Key": "k"}).status_code == 422
    assert len(calls) == 1


def test_refusals_are_repeated_and_crashes_are_tried_again(client: TestClient, calls: list[Any]) -> None:
    for _ in range(2):
        assert client.post("/refuse", headers={"Idempotency-Key": "r"}).status_code == 422
        assert client.post("/crash", headers={"Idempotency-Key": "c"}).status_code == 500
    assert calls == ["refuse", "crash", "crash"]


def test_an_answer_that_must_not_be_stored_is_not(client: TestClient, app: FastAPI, services: Services) -> None:
    @app.post("/secret")
    def secret() -> JSONResponse:
        return JSONResponse("tadpole_key", headers={"Cache-Control": "no-store"})

    assert client.post("/secret", headers={"Idempotency-Key": "k"}).json() == "tadpole_key"
    with services.database.reading() as session:
        assert session.scalars(select(IdempotencyRecord)).all() == []


@pytest.mark.parametrize(
    ("path", "kept"),
    [("/echo", ['{"length":1,"call":1}']), ("/pieces?count=2", ["x" * 2**17]), ("/pieces?count=17", []), ("/busy", [])],
)
def test_an_answer_is_kept_before_the_client_has_it(
    path: str, kept: list[str], app: FastAPI, key: str, calls: list[Any], services: Services
) -> None:
    """And one that is not kept is forgotten by then: whoever asks again at once is not told that it is being worked on."""
    @app.post("/pieces")
    def pieces(count: int) -> StreamingResponse:
        return StreamingResponse("x" * 2**16 for _ in range(count))

    @app.post("/busy")
    def busy() -> None:
        raise Problem(503, "Busy", "busy", retry_after=1)

    found: list[list[str | None]] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                with services.database.reading() as session:
                    found.append(list(session.scalars(select(IdempotencyRecord.body))))
            await send(message)

        await app(scope, receive, sending)

    client = TestClient(watched, headers={"Authorization": key, "Idempotency-Key": "k"})
    answers = [client.post(path, content=b"a") for _ in range(2)]
    assert found == [kept, kept]
    assert answers[0].text == answers[1].text or not kept
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true" if kept else None]


def test_an_answer_that_cannot_be_kept_is_sent(
    client: TestClient, app: FastAPI, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/last")
    def last() -> str:
        services.database.close()
        services.database = Database("postgresql+psycopg://127.0.0.1:1/nothing")
        return "done"

    answer = client.post("/last", headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()) == (200, "done")
    (told,) = [record for record in caplog.records if record.name == "service.idempotency"]
    assert "could not be kept" in told.getMessage() and told.exc_info


def test_keys_of_others_are_others(client: TestClient, calls: list[Any], services: Services) -> None:
    client.post("/echo", content=b"a", headers={"Idempotency-Key": "k"})
    key = services.keys.create(services.keys.project("other"), "other")
    answer = client.post("/echo", content=b"a", headers={"Idempotency-Key": "k", "Authorization": key})
    assert answer.json()["call"] == 2


def test_a_job_is_made_once_though_the_answer_was_lost(client: TestClient, calls: list[Any], services: Services) -> None:
    first = client.post("/test/jobs", headers={"Idempotency-Key": "k"}).json()
    with services.database.writing() as session:
        session.execute(delete(IdempotencyRecord))
    assert client.post("/test/jobs", headers={"Idempotency-Key": "k"}).json() == first
    assert client.post("/test/jobs").json() != first


def test_two_clients_of_a_project_may_think_of_the_same_key(client: TestClient, calls: list[Any], services: Services) -> None:
    second = {"Authorization": services.keys.create(services.keys.project("default"), "second"), "Idempotency-Key": "1"}
    first = client.post("/test/jobs", headers={"Idempotency-Key": "1"}).json()
    assert client.post("/test/jobs", headers=second).json() != first


def test_a_view_tells_problems_in_its_own_words(app: FastAPI, client: TestClient) -> None:
    router = APIRouter(route_class=route_with(lambda problem: JSONResponse({"errors": [problem.detail]}, 200)))

    @router.get("/theirs")
    def theirs(caller: Trainer, count: int) -> int:
        raise not_found("thing")

    app.include_router(router)
    assert client.get("/theirs?count=1").json() == {"errors": ["there is no thing"]}
    assert client.get("/theirs?count=x").json()["errors"][0].startswith("count: ")
    assert client.get("/theirs?count=1", headers={"Authorization": ""}).json()["errors"][0].startswith("send your API key")


def test_a_request_that_is_being_worked_on_is_not_begun_again(client: TestClient, calls: list[Any], app: FastAPI) -> None:
    inner: list[int] = []

    @app.post("/slow")
    def slow() -> str:
        inner.append(client.post("/slow", headers={"Idempotency-Key": "k"}).status_code)
        return "done"

    assert client.post("/slow", headers={"Idempotency-Key": "k"}).json() == "done"
    assert inner == [409]


def test_a_request_that_is_forgotten_as_the_same_one_comes_again_is_done_once_more(
    client: TestClient, calls: list[Any], services: Services, key: str
) -> None:
    """It failed just then, and left no answer. Of the one that comes now, there is one afterwards."""
    found = services.keys.check(key)
    assert found is not None
    with services.database.writing() as session:
        session.add(IdempotencyRecord(key_id=found.key_id, idempotency_key="k", request_digest="d", created_at=time.time()))
    failing = iter(["the first one"])

    @event.listens_for(services.database.engine, "after_cursor_execute")
    def meanwhile(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO idempotency_records") and next(failing, None):
            connection.exec_driver_sql("DELETE FROM idempotency_records")

    answers = [client.post("/echo", content=b"a", headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    assert answers[0].json() == answers[1].json()
    assert len(calls) == 1


def test_a_problem_can_ask_for_patience() -> None:
    assert Problem(429, "Slow", "slow", retry_after=0.2).headers == {"Retry-After": "1"}
