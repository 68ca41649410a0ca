"""The door of the page: keys become sessions, which end when they are ended or their key is; forms are ours, tries are few."""
from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_html import Page
from page_world import sign_in
from sqlalchemy import select, update

from service.database.tables import PageSession
from service.page.sessions import COOKIE, SIGN_INS_PER_MINUTE, csrf_token
from service.page.sign_in import VISITOR, own_path
from service.services import Services


@pytest.fixture
def nobody(app: FastAPI) -> TestClient:
    return TestClient(app, follow_redirects=False)


def enter(browser: TestClient, key: str, **more: str):
    door = Page(browser.get("/login").text)
    return browser.post("/login", data={"csrf": door.csrf(), "key": key, "next": "/models", **more})


def test_who_is_not_signed_in_is_led_to_the_door_and_back(nobody: TestClient, key: str) -> None:
    sent = nobody.get("/trainings/abc")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=/trainings/abc")
    assert Page(nobody.get(sent.headers["location"]).text).all("input", name="next")[0].get("value") == "/trainings/abc"
    scripted = nobody.get("/trainings", headers={"HX-Request": "true"})
    assert (scripted.status_code, scripted.headers["hx-redirect"]) == (204, "/login?next=/trainings")
    entered = enter(nobody, key)
    assert (entered.status_code, entered.headers["location"]) == (303, "/models")
    assert nobody.get("/models").status_code == 200
    assert nobody.get("/login").headers["location"] == "/trainings"


def test_the_cookie_is_kept_from_scripts_and_other_sites(nobody: TestClient, key: str, services: Services) -> None:
    cookie = next(line for line in enter(nobody, key).headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    parts = {part.strip().lower() for part in cookie.split(";")}
    assert {"httponly", "samesite=lax", "path=/"} <= parts and "secure" not in parts
    token = cookie.split("=", 1)[1].split(";")[0]
    with services.database.reading() as session:
        rows = session.scalars(select(PageSession)).all()
    assert len(rows) == 1 and token not in rows[0].digest and key not in rows[0].digest


def test_each_sign_in_is_a_new_session_and_ends_the_one_before(app: FastAPI, key: str, services: Services) -> None:
    """A cookie that somebody else has planted opens nothing, before and after."""

    def enter_with(session: str) -> str:
        cookies = f"{VISITOR}=visitor; {COOKIE}={session}"
        stranger = TestClient(app, follow_redirects=False)
        data = {"csrf": csrf_token("visitor"), "key": key}
        assert stranger.post("/login", data=data, headers={"Cookie": cookies}).status_code == 303
        return stranger.cookies[COOKIE]

    first = enter_with("planted")
    second = enter_with(first)
    assert len({"planted", first, second}) == 3
    assert [services.sessions.find(token) is not None for token in ("planted", first, second)] == [False, False, True]


def test_a_wrong_key_is_told_beside_its_field(nobody: TestClient) -> None:
    answer = enter(nobody, "tadpole_abc_def")
    page = Page(answer.text)
    assert answer.status_code == 422
    assert page.by_id("key").get("aria-describedby") == "key-mistake"
    assert "unknown, expired or revoked" in page.by_id("key-mistake").text
    assert COOKIE not in nobody.cookies


def test_ten_tries_a_minute(nobody: TestClient, services: Services, key: str) -> None:
    services.sessions._sign_ins._clock = lambda: 0.0
    answers = [enter(nobody, "tadpole_abc_def").status_code for _ in range(SIGN_INS_PER_MINUTE)]
    last = enter(nobody, key)
    assert set(answers) == {422} and last.status_code == 429 and int(last.headers["retry-after"]) >= 1


@pytest.mark.parametrize("given", [None, "", "wrong", csrf_token("another")])
def test_the_door_takes_its_own_form_only(given: str | None, nobody: TestClient, key: str) -> None:
    nobody.get("/login")
    data = {"key": key} if given is None else {"key": key, "csrf": given}
    assert nobody.post("/login", data=data).status_code == 403
    assert COOKIE not in nobody.cookies


def test_without_the_cookie_of_the_form_there_is_no_way_in(nobody: TestClient, key: str) -> None:
    csrf = Page(nobody.get("/login").text).csrf()
    nobody.cookies.clear()
    assert nobody.post("/login", data={"key": key, "csrf": csrf}).status_code == 403


def test_signing_out_ends_the_session_itself(app: FastAPI, browser: TestClient, csrf: str) -> None:
    token = browser.cookies[COOKIE]
    assert browser.post("/logout", data={"csrf": csrf}).headers["location"] == "/login"
    copy = TestClient(app, cookies={COOKIE: token}, follow_redirects=False)
    assert copy.get("/trainings").status_code == 303


def test_a_revoked_key_ends_its_sessions(browser: TestClient, services: Services, caller) -> None:
    services.keys.revoke(caller.project_id, caller.key_id)
    assert browser.get("/trainings").status_code == 303


def test_a_session_ends_by_itself(browser: TestClient, services: Services) -> None:
    with services.database.writing() as session:
        session.execute(update(PageSession).values(expires_at=1.0))
    assert browser.get("/trainings").status_code == 303


def test_the_api_takes_a_session_for_reading_and_with_its_token_for_more(browser: TestClient, csrf: str) -> None:
    assert browser.get("/v1/account").status_code == 200
    model = {"owner": "default", "name": "m", "visibility": "private", "hardware": "cpu"}
    assert browser.post("/v1/models", json=model).status_code == 403
    assert browser.post("/v1/models", json=model, headers={"X-CSRF-Token": csrf_token("another")}).status_code == 403
    assert browser.post("/v1/models", json=model, headers={"X-CSRF-Token": csrf}).status_code == 201


def test_a_key_that_is_sent_counts_more_than_a_session(browser: TestClient) -> None:
    assert browser.get("/v1/account", headers={"Authorization": "Bearer tadpole_a_b"}).status_code == 401


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        ("/models", "/models"), ("/trainings/abc", "/trainings/abc"), ("https://evil.test/", "/trainings"), ("//evil.test", "/trainings"),
        ("/\\evil.test", "/trainings"), ("javascript:alert(1)", "/trainings"), ("/login", "/trainings"), ("", "/trainings"),
        ("/a\r\nSet-Cookie: x=y", "/trainings"),
    ],
)  # fmt: skip
def test_the_way_back_leads_to_no_other_host(wanted: str, leads_to: str) -> None:
    assert own_path(wanted) == leads_to


def test_a_key_that_may_only_read_sees_no_buttons(app: FastAPI, services: Services, training) -> None:
    job = training()
    reader = sign_in(app, services.keys.create(services.keys.project("default"), "reader", ["read"]))
    page = Page(reader.get(f"/trainings/{job.id}").text)
    assert [form.get("action") for form in page.all("form", method="post")] == ["/logout"]
    assert reader.get("/trainings/new").status_code == 403
    assert reader.get("/keys").status_code == reader.get("/queue").status_code == 403
    assert reader.post(f"/trainings/{job.id}/cancel", data={"csrf": page.csrf()}).status_code == 403
