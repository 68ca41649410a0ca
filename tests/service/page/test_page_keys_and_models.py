"""Keys are shown once; models have a form with the inputs that their schema declares."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from page_html import Page, mistakes_in
from sqlalchemy import update

from service.database.tables import Job, Model, Version
from service.jobs.board import NewJob
from service.keys import Caller
from service.page.models import try_controls
from service.services import Services

SCHEMA = {
    "components": {
        "schemas": {
            "Input": {
                "required": ["prompt"],
                "properties": {
                    "seed": {"type": "integer", "title": "Seed", "minimum": 0, "maximum": 9, "x-order": 2},
                    "prompt": {"type": "string", "title": "Prompt", "description": 'What to "draw"', "x-order": 0},
                    "image": {"type": "string", "format": "uri", "x-order": 1},
                    "scheduler": {"allOf": [{"$ref": "#/components/schemas/scheduler"}], "default": "DDIM", "x-order": 3},
                    "raw": {"type": "boolean", "default": True, "x-order": 4},
                },
            },
            "scheduler": {"title": "scheduler", "enum": ["DDIM", 'PN"DM'], "type": "string"},
        }
    }
}


@pytest.fixture
def model(services: Services, caller) -> str:
    with services.database.writing() as session:
        session.add(
            Model(
                id="m", project_id=caller.project_id, owner="default", name="frog", visibility="private", description="A <b>frog</b>",
                details={}, run_count=0, created_at=1.0,
            )
        )  # fmt: skip
        session.flush()
        for number, version in enumerate(("ab12", "cd34")):
            session.add(
                Version(
                    project_id=caller.project_id, id=version, model_id="m", cog_version="0.16", openapi_schema=SCHEMA, card={},
                    folder=f"packages/{version}", created_at=2.0 + number,
                )
            )  # fmt: skip
    return "/models/default/frog"


def test_models_are_listed_and_shown(browser: TestClient, other_browser: TestClient, model: str) -> None:
    listed = Page(browser.get("/models").text)
    assert mistakes_in(listed) == [] and "2 versions" in listed.root.text
    page = Page(browser.get(model).text)
    assert mistakes_in(page) == [] and "A <b>frog</b>" in page.root.text
    assert "cd34" in page.by_id("snippet-1").text  # the newest
    assert "ab12" in Page(browser.get(f"{model}?version=ab12").text).by_id("snippet-1").text
    for address in (f"{model}?version=ef", "/models/default/other", "/models/other/frog"):
        assert browser.get(address).status_code == 404
    assert other_browser.get(model).status_code == 404
    assert "No models yet" in other_browser.get("/models").text


def test_models_are_shown_with_what_their_training_drew_last(
    browser: TestClient, services: Services, model: str, training: Callable[..., Job]
) -> None:
    job = training("succeeded")
    with services.database.writing() as session:
        session.execute(update(Version).values(job_id=job.id))
    for address in ("/models", model):
        drawn = [one.get("src") for one in Page(browser.get(address).text).all("img")]
        assert [source.rpartition("/")[2][:15] for source in drawn] == ["model_000020_00", "model_000020_01"]
        assert all(browser.get(source).status_code == 200 for source in drawn)


def test_a_model_is_tried_with_a_form(browser: TestClient, model: str) -> None:
    page = Page(browser.get(model).text)
    [form] = page.all("form", id="try")
    assert mistakes_in(page) == [] and form.get("data-version") == "cd34"
    assert [one.get("data-input") for one in form.walk() if one.get("data-input")] == ["prompt", "seed", "scheduler", "raw"]
    assert [one.get("value") for one in form.walk() if one.tag == "option"] == ['"DDIM"', '"PN\\"DM"']
    assert page.all("meta", name="csrf-token")[0].get("content")


def test_controls_are_those_that_a_form_can_ask_for() -> None:
    controls = {control.name: control for control in try_controls(SCHEMA)}
    assert [control.kind for control in controls.values()] == ["lines", "number", "choice", "flag"]
    assert controls["seed"].most == 9 and controls["seed"].is_whole and controls["prompt"].required
    assert try_controls({}) == []


def test_the_queue_names_no_trainings_of_others(
    browser: TestClient, other_browser: TestClient, services: Services, caller: Caller, training: Callable[..., Job]
) -> None:
    training()
    services.board.create(caller, NewJob(api="console", name="next-frog", is_ready=True))
    page = Page(browser.get("/queue").text)
    assert mistakes_in(page) == [] and "my-frog" in page.root.text and "next-frog" in page.root.text
    theirs = Page(other_browser.get("/queue", headers={"HX-Request": "true"}).text)
    assert "frog" not in theirs.root.text and theirs.root.text.count("Of another project") == 2
    assert [one for one in theirs.all("a") if "/trainings/" in one.get("href")] == []


def test_a_key_is_shown_once(browser: TestClient, services: Services, csrf: str) -> None:
    answer = browser.post("/keys", data={"csrf": csrf, "name": "for the lab", "scope-read": "on", "days": "30"})
    page = Page(answer.text)
    key = page.by_id("new-key").text
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store" and mistakes_in(page) == []
    caller = services.keys.check(key)
    assert caller is not None and caller.scopes == {"read"}
    later = browser.get("/keys").text
    assert "for the lab" in later and not re.search(r"tadpole_[a-z0-9]+_[A-Za-z0-9]", later)


def test_mistakes_of_a_new_key_stand_beside_its_fields(browser: TestClient, services: Services, caller, csrf: str) -> None:
    answer = browser.post("/keys", data={"csrf": csrf, "name": "", "days": "many"})
    page = Page(answer.text)
    assert answer.status_code == 422 and mistakes_in(page) == []
    assert all(page.by_id(name).text for name in ("key-name-mistake", "key-days-mistake", "scopes-mistake"))
    assert len(services.keys.listed(caller.project_id)) == 1


def test_keys_are_revoked_by_their_own_project_only(
    browser: TestClient, other_browser: TestClient, services: Services, caller, csrf: str
) -> None:
    key = services.keys.create(caller.project_id, "second")
    key_id = key.split("_")[1]
    theirs = Page(other_browser.get("/keys").text)
    assert "second" not in theirs.root.text
    assert other_browser.post(f"/keys/{key_id}/revoke", data={"csrf": theirs.csrf()}).status_code == 404
    assert services.keys.check(key) is not None
    assert browser.post(f"/keys/{key_id}/revoke", data={"csrf": csrf}).status_code == 303
    assert services.keys.check(key) is None
    assert "revoked" in browser.get("/keys").text
