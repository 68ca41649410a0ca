"""What an API key opens, for whom, how fast, and until when."""
from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, event, select

from service.database.engine import Database
from service.database.tables import ApiKey
from service.keys import KNOWN_SECONDS, Admin, Keys, Reader, key_in
from service.problems import Problem
from service.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def open_client(app: FastAPI) -> TestClient:
    @app.get("/mine")
    def mine(caller: Reader) -> dict[str, Any]:
        return {"project": caller.project_id}

    @app.post("/mine/keys")
    def manage(caller: Admin) -> dict[str, Any]:
        return {"key": caller.idempotency_key}

    return TestClient(app)


def test_only_a_digest_is_stored(database: Database) -> None:
    keys = Keys(database)
    key = keys.create(keys.project("default"), "mine")
    with database.reading() as session:
        row = session.scalars(select(ApiKey)).one()
    secret = key.split("_")[2]
    assert len(secret) == 43
    assert secret not in str(vars(row))
    assert keys.check(key) is not None
    assert keys.check(key[:-1] + ("a" if key[-1] != "a" else "b")) is None


def test_two_services_that_begin_at_once_make_one_project(database: Database) -> None:
    keys, others = Keys(database), iter(["other"])

    @event.listens_for(database.engine, "before_cursor_execute")
    def meanwhile(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO projects") and (faster := next(others, None)):
            connection.exec_driver_sql(f"INSERT INTO projects (id, name, created_at) VALUES ('{faster}', 'default', 0)")

    assert keys.project("default") == keys.project("default") == "other"


@pytest.mark.parametrize("key", ["", "tadpole_", "tadpole_a_b_c", "tadpole__", "other_a_b", "tadpole_\0_x", "x" * 5000])
def test_what_is_no_key_opens_nothing(key: str, database: Database) -> None:
    assert Keys(database).check(key) is None


def test_keys_expire_and_are_revoked(database: Database) -> None:
    clock = Clock()
    keys = Keys(database, clock)
    project = keys.project("default")
    short = keys.create(project, "short", expires_at=1010.0)
    assert keys.check(short) is not None
    clock.now = 1010.0
    assert keys.check(short) is None
    key = keys.create(project, "long")
    keys.revoke(project, key.split("_")[1])
    assert keys.check(key) is None
    with pytest.raises(Problem) as raised:
        keys.revoke(keys.project("other"), key.split("_")[1])
    assert raised.value.status == 404


def test_use_is_noted_once_a_minute(database: Database) -> None:
    clock = Clock()
    keys = Keys(database, clock)
    project = keys.project("default")
    key = keys.create(project, "mine")
    uses = []
    for clock.now in (2000.0, 2030.0, 2061.0):
        caller = keys.check(key)
        assert caller is not None
        if not caller.is_noted:
            keys.note_use(caller)
        uses.append(keys.listed(project)[0].last_used_at)
    assert uses == [2000.0, 2000.0, 2061.0]


def test_a_key_that_another_process_revokes_opens_nothing_a_second_later(database: Database) -> None:
    clock = Clock()
    clock.now = 2000.0
    here, elsewhere = Keys(database, clock), Keys(database, clock)
    project = here.project("default")
    key = here.create(project, "mine")
    assert here.check(key) is not None
    elsewhere.revoke(project, key.split("_")[1])
    assert elsewhere.check(key) is None
    clock.now += KNOWN_SECONDS
    assert here.check(key) is None


def test_requests_note_that_their_key_is_used(open_client: TestClient, app: FastAPI) -> None:
    keys = app.state.services.keys
    project = keys.project("noted")
    header = {"Authorization": keys.create(project, "mine")}
    assert keys.listed(project)[0].last_used_at is None
    assert open_client.get("/mine", headers=header).status_code == 200
    assert keys.listed(project)[0].last_used_at is not None


@pytest.mark.parametrize("header", ["K_1", "Bearer K_1", "Token K_1", "bearer  K_1 ", " token K_1"])
def test_the_header_has_three_forms(header: str) -> None:
    assert key_in(header) == "K_1"


def test_strangers_are_refused(open_client: TestClient) -> None:
    answer = open_client.get("/mine")
    assert (answer.status_code, answer.json()["title"]) == (401, "Unauthenticated")
    answer = open_client.get("/mine", headers={"Authorization": "Bearer tadpole_a_b"})
    assert answer.status_code == 401
    assert "unknown, expired or revoked" in answer.json()["detail"]


def test_strangers_who_guess_are_slowed_down(open_client: TestClient, app: FastAPI) -> None:
    app.state.services.door.strangers = Throttle(60, lambda: 0.0)
    codes = [open_client.get("/mine", headers={"Authorization": "x"}).status_code for _ in range(62)]
    assert set(codes[:60]) == {401}
    assert codes[-1] == 429


def test_scopes(open_client: TestClient, app: FastAPI) -> None:
    keys = app.state.services.keys
    project = keys.project("default")
    reader = {"Authorization": f"Token {keys.create(project, 'r', ['read'])}"}
    assert open_client.get("/mine", headers=reader).json() == {"project": project}
    answer = open_client.post("/mine/keys", headers=reader)
    assert (answer.status_code, "admin" in answer.json()["detail"]) == (403, True)
    with pytest.raises(Problem, match="write read, train, admin"):
        keys.create(project, "x", ["root"])


def test_a_key_that_asks_too_fast_waits(open_client: TestClient, app: FastAPI, key: str) -> None:
    app.state.services.door.calls = Throttle(2, lambda: 0.0)
    answers = [open_client.get("/mine", headers={"Authorization": key}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "30"
    assert answers[2].json()["detail"] == "Request was throttled. Your rate limit resets in ~30s."


def test_a_bucket_fills_steadily() -> None:
    clock = Clock()
    throttle = Throttle(60, clock)
    assert [throttle.take("a") for _ in range(61)][-2:] == [0.0, 1.0]
    assert throttle.take("b") == 0
    clock.now += 0.5
    assert throttle.take("a") == 0.5
    clock.now += 0.5
    assert throttle.take("a") == 0
