"""A training as it goes on: what is sent, when, and that what can be pressed is replaced only when it changes."""
from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from page_html import Page
from sqlalchemy import update

from service.database.tables import Job, WebhookMessage
from service.jobs.board import NewJob
from service.keys import Caller
from service.page import rendering
from service.page.live import LiveTraining, place_after
from service.page.sessions import COOKIE
from service.services import Services

Make = Callable[..., Job]


@pytest.fixture
def running(training: Make) -> Job:
    return training()


@pytest.fixture
def live(browser: TestClient, services: Services, running: Job) -> LiveTraining:
    return LiveTraining(services, browser.cookies[COOKIE], running.id, 0, 0)


def seen(live: LiveTraining) -> dict[str, Page]:
    """What has come, by event, as the browser puts it in."""
    events = {}
    for event in live.look():
        name, _, *data = event.strip().split("\n")
        events[name.removeprefix("event: ")] = Page("\n".join(line.removeprefix("data: ") for line in data))
    return events


def tile(figures: Page, name: str) -> str:
    [found] = [one.children[1] for one in figures.all("div") if one.children[0].text == name]
    return found.text


def times(part: Page) -> list[str]:
    return [one.text for one in part.all("time")]


def change(services: Services, job: Job, **values: object) -> None:
    """As the worker notes it while it drives the job."""
    with services.database.writing() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


def test_a_training_is_followed_to_its_end(browser: TestClient, training: Make) -> None:
    job = training("succeeded")
    text = browser.get(f"/trainings/{job.id}/live?log=7&step=28").text
    events = {block.split("\n")[0].removeprefix("event: "): block for block in text.strip().split("\n\n")}
    assert {"say", "status", "figures", "remarks", "samples", "files", "ages", "loss", "log", "end"} == set(events)
    assert "data: <span>&lt;b&gt;step 2&lt;/b&gt;" in events["log"] and "step 1" not in events["log"]
    assert '"step": [29, 30]' in events["loss"]
    assert "id: 21-30" in events["end"]


def test_a_break_goes_on_where_it_was() -> None:
    assert place_after("21-30", 7, 28) == (21, 30)
    for written in ("", "x", "21", "-", "21-x", "9" * 40 + "-1"):
        assert place_after(written, 7, 28) == (7, 28)


def test_only_what_has_changed_is_sent_again(live: LiveTraining, services: Services, running: Job) -> None:
    assert set(seen(live)) == {"say", "status", "figures", "remarks", "samples", "files", "ages", "loss", "log"}
    assert live.look() == [] and not live.is_over
    log = services.workshop.folder(running).log("training")
    log.write_text(log.read_text(encoding="utf-8") + "step 3\n", encoding="utf-8")
    [event] = live.look()
    assert event.startswith("event: log") and "step 3" in event and "step 2" not in event


def test_a_new_step_leaves_the_buttons_alone(live: LiveTraining, services: Services, running: Job) -> None:
    first = seen(live)
    assert first["status"].by_id("cancel").text == "Cancel" and tile(first["figures"], "Steps") == "0"
    for step in (1, 2):
        change(services, running, progress={"step": step, "total_steps": 30, "loss": 0.5 / step, "speed": 2.5, "eta_s": 60 - step})
        events = seen(live)
        assert set(events) == {"figures"}
        figures = events["figures"]
        assert [tile(figures, name) for name in ("Steps", "Loss", "Steps a second", "Left")] == [f"{step} of 30", str(0.5 / step), "2.5", f"{60 - step} s"]
        assert [(one.get("value"), one.get("max")) for one in figures.all("progress")] == [(str(step), "30")]
        assert figures.all("button", "a", "form") == []


def test_a_new_state_changes_buttons_stages_and_figures(live: LiveTraining, services: Services, running: Job) -> None:
    change(services, running, progress={"step": 30, "total_steps": 30, "eta_s": 0})
    seen(live)
    services.board.cancel(running.project_id, running.id, "test")
    canceling = seen(live)
    assert set(canceling) == {"say", "status"} and canceling["say"].root.text.strip() == "Canceling"
    assert canceling["status"].all("button") == []
    assert services.board.advance(running.id, "training", "failed", error="it broke")
    failed = seen(live)
    assert {"say", "status", "figures"} <= set(failed)
    assert [one.text for one in failed["status"].all("p", role="alert")] == ["It broke"]
    assert [one.text for one in failed["status"].all("li", **{"class": "failed"})] == ["Train: failed"]
    assert tile(failed["figures"], "Took") and not failed["figures"].all("p", "li")


def test_a_remark_comes_alone(live: LiveTraining, services: Services, running: Job) -> None:
    seen(live)
    change(services, running, warnings=["it began again"])
    events = seen(live)
    assert set(events) == {"remarks"} and [one.text for one in events["remarks"].all("li")] == ["it began again"]


def test_time_that_goes_by_changes_words_only(
    browser: TestClient, services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the buttons of the training nor those of its webhooks are replaced, though both say how long ago something was."""
    hook = "https://example.org/hook"
    job = services.board.create(caller, NewJob(api="console", webhook=hook, webhook_events=("logs",), is_ready=True))
    assert services.board.advance(job.id, "queued", "preparing")
    services.board.announce_logs(job.id)
    now = job.created_at
    with services.database.writing() as session:
        session.execute(update(WebhookMessage).values(created_at=now, next_attempt_at=now + 300, attempts=1, last_status=500))
    monkeypatch.setattr(rendering, "time", SimpleNamespace(time=lambda: now))
    live = LiveTraining(services, browser.cookies[COOKIE], job.id, 0, 0)
    first = seen(live)
    assert [times(first[part]) for part in ("status", "deliveries")] == [["just now"], ["just now", "in 5 min 00 s"]]
    assert first["status"].by_id("cancel") and first["deliveries"].all("button")
    now += 90
    [event] = live.look()
    [data] = [line.removeprefix("data: ") for line in event.split("\n") if line.startswith("data: ")]
    shown = {one.get("datetime"): one.text for part in ("status", "deliveries") for one in first[part].all("time")}
    assert event.startswith("event: ages") and json.loads(data) == dict(zip(shown, ["1 min 30 s ago", "in 3 min 30 s"], strict=True))
    services.board.cancel(job.project_id, job.id, "test")
    assert times(seen(live)["status"]) == ["1 min 30 s ago"]  # what is sent again says so itself


def test_who_is_signed_out_hears_no_more(browser: TestClient, live: LiveTraining, csrf: str) -> None:
    browser.post("/logout", data={"csrf": csrf})
    assert [event.split("\n")[0] for event in live.look()] == ["event: end"] and live.is_over
