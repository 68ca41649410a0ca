"""The disk is full: what requests are answered then, and that they are taken again when there is room."""
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from graphql import GraphQLError
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.database.engine import Database
from service.jobs.board import NewJob
from service.keys import Keys
from service.serve import NO_ROOM, main
from service.settings import ServiceSettings
from service.storage.space import DiskFull
from service.views.graphql import _error

TOLD = str(DiskFull())


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """On SQLite in any case: its file can be kept from growing."""
    app = create_app(ServiceSettings(data_dir=tmp_path / "data", public_url="http://testserver"))
    yield app
    app.state.services.database.close()


def limit(database: Database, pages: int) -> None:
    """From now on the database grows to so many pages, and finds a full disk then."""
    event.listen(database.engine, "connect", lambda connection, _record: connection.execute(f"PRAGMA max_page_count = {pages}"))
    database.engine.dispose()


def pages_of(database: Database) -> int:
    with database.reading() as session:
        return int(session.execute(text("PRAGMA page_count")).scalar_one())


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def model(client: TestClient, number: int, **headers: str) -> Any:
    body = {"owner": "default", "name": f"m{number}", "description": "x" * 3000}
    return client.post("/v1/models", json=body, headers=headers)


def test_a_database_without_room_is_told_and_can_be_read(app: FastAPI, caller: Any, key: str) -> None:
    services = app.state.services
    job_id = services.board.create(caller, NewJob("console")).id
    limit(services.database, pages_of(services.database))
    client = TestClient(app, headers={"Authorization": key})
    answer = next(answer for answer in (model(client, number) for number in range(100)) if answer.status_code != 201)
    assert (answer.status_code, answer.json()["detail"]) == (507, TOLD)
    assert model(client, 200, **{"Idempotency-Key": "k" * 200}).status_code == 507
    fresh = services.keys.create  # a key that was not used yet is noted as used, which is not worth a refusal
    limit(services.database, pages_of(services.database) + 3)
    unused = fresh(caller.project_id, "unused")
    limit(services.database, 1)
    for header in (key, unused):
        assert client.get(f"/v1/jobs/{job_id}", headers={"Authorization": header}).status_code == 200
    limit(services.database, 2**30)
    assert model(client, 200, **{"Idempotency-Key": "k" * 200}).status_code == 201


def test_a_form_that_finds_no_room_is_told(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
        answer = client.post("/v1/files", files={"content": ("a.zip", b"x" * (2 << 20))})
        assert (answer.status_code, answer.json()["detail"]) == (507, TOLD)
    assert client.post("/v1/files", files={"content": ("a.zip", b"x" * (2 << 20))}).status_code == 201


def test_a_file_that_finds_no_row_is_not_kept(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    services = app.state.services
    limit(services.database, 1)
    answer = client.post("/v1/files", files={"content": ("a.zip", b"x")}, data={"metadata": '{"a": "' + "x" * 60_000 + '"}'})
    assert (answer.status_code, answer.json()["detail"]) == (507, TOLD)
    assert [path for path in (services.settings.data_dir / "store").rglob("*") if path.is_file()] == []


def test_a_database_that_is_away_is_no_mistake_of_ours(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(Keys, "check", away)
    answer = client.get("/v1/account")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the database does not answer" in answer.json()["detail"]


def test_graphql_tells_it_too() -> None:
    error = GraphQLError("x", original_error=DiskFull())
    assert (_error(error)["errorType"], _error(error)["message"]) == ("InternalFailure", TOLD)


def test_a_service_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("service.serve.create_app", full)
    assert main(["--data_dir", str(tmp_path), "--port", "0"]) == NO_ROOM
    assert capsys.readouterr().err.splitlines()[-1].endswith("is full: make room, and start again")
