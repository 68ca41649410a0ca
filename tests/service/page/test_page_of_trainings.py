"""The list of trainings and the page of one: complete, readable without scripts, safe under the policy, closed to others."""
from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from page_html import Page, mistakes_in
from page_world import INPUTS
from sqlalchemy import update

from service.database.tables import Job, WebhookMessage
from service.jobs.board import NewJob
from service.jobs.states import PREPARING, QUEUED
from service.page.again import inputs_of
from service.services import Services
from service.training import from_console

Make = Callable[..., Job]


def test_all_pages_hold_what_they_promise(browser: TestClient, services: Services, caller, training: Make) -> None:
    jobs = [training(), training("succeeded"), training("failed", error="<script>alert(1)</script> out of memory")]
    addresses = ["/trainings", "/trainings?show=failed", "/trainings/new", f"/trainings/new?like={jobs[1].id}", "/models", "/keys", "/queue", "/login"]
    for address in [*addresses, *(f"/trainings/{job.id}" for job in jobs)]:
        visitor = TestClient(browser.app) if address == "/login" else browser
        answer = visitor.get(address)
        assert answer.status_code == 200, address
        assert mistakes_in(Page(answer.text)) == [], address
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "form-action 'self'" in policy
        assert answer.headers["cache-control"] == "private, no-cache"


def test_an_empty_list_says_what_to_do(browser: TestClient) -> None:
    page = Page(browser.get("/trainings").text)
    assert "Nothing has been trained yet" in page.by_id("trainings").text
    assert [one.text for one in page.by_id("trainings").walk() if one.get("href") == "/trainings/new"] == ["Train something"]
    assert "None of these" in browser.get("/trainings?show=failed").text


def test_the_list_shows_state_and_progress_and_is_sifted(browser: TestClient, services: Services, training: Make) -> None:
    running, failed = training(), training("failed", error="no")
    whole = Page(browser.get("/trainings").text).by_id("trainings").text
    assert "Training" in whole and "Failed" in whole
    sifted = Page(browser.get("/trainings?show=failed").text)
    assert [one.get("href") for one in sifted.all("a") if one.get("id").startswith("job-")] == [f"/trainings/{failed.id}"]
    part = browser.get("/trainings", headers={"HX-Request": "true"}).text
    assert "<html" not in part and running.id in part and "every 4s" in part
    assert "every 4s" not in browser.get("/trainings?show=failed").text  # nothing in it changes any more


def test_what_a_stranger_asks_for_is_not_there(browser: TestClient, other_browser: TestClient, training: Make) -> None:
    job = training("succeeded", output={"files": [{"name": "output.zip", "size": 1, "sha256": "0" * 64, "key": "jobs/x/output.zip"}]})
    sample = "model_000010_00_20260102030405_1337.png"
    paths = ["", "/live", "/loss.json", "/log.txt", f"/samples/{sample}", "/files/output.zip", "/preview/instance/00001.png"]
    csrf = Page(other_browser.get("/trainings").text).csrf()
    for path in paths:
        answer = other_browser.get(f"/trainings/{job.id}{path}")
        assert answer.status_code == 404, path
        assert "my-frog" not in answer.text
    for action in ("cancel", "resume"):
        assert other_browser.post(f"/trainings/{job.id}/{action}", data={"csrf": csrf}).status_code == 404
    assert other_browser.get(f"/trainings/new?like={job.id}").status_code == 404
    assert other_browser.get(f"/trainings/new?draft={job.id}").status_code == 404
    assert "my-frog" not in other_browser.get("/trainings").text
    assert browser.get(f"/trainings/{job.id}").status_code == 200


@pytest.mark.parametrize("path", ["/trainings/ID/cancel", "/trainings/ID/resume", "/trainings", "/trainings/new/pictures",
                                  "/trainings/new/preset", "/trainings/new/request", "/keys", "/keys/x/revoke", "/logout"])  # fmt: skip
@pytest.mark.parametrize("token", [None, "wrong"])
def test_no_form_is_taken_without_its_token(path: str, token: str | None, browser: TestClient, training: Make) -> None:
    job = training()
    answer = browser.post(path.replace("ID", job.id), data={} if token is None else {"csrf": token})
    assert answer.status_code == 403
    assert "Form expired" in answer.text


def test_what_others_wrote_is_text(browser: TestClient, services: Services, caller) -> None:
    name = "<img src=x onerror=alert(1)>"
    job = services.board.create(caller, NewJob(api="tiyaro", name=name, warnings=["</p><script>1</script>"]))
    for address in ("/trainings", f"/trainings/{job.id}"):
        page = Page(browser.get(address).text)
        assert [one for one in page.all("img", "script") if one.get("src") in ("", "x") and one.get("id") != "viewer-picture"] == []
        assert name in page.root.text


def test_the_page_of_a_training_is_complete_without_scripts(browser: TestClient, training: Make) -> None:
    job = training()
    page = Page(browser.get(f"/trainings/{job.id}").text)
    [stages] = [one for one in page.all("ol") if one.get("class") == "stages"]
    assert [stage.get("class") for stage in stages.children] == ["done", "now", "later", "later"]
    assert stages.children[1].get("aria-current") == "step"
    assert "<b>step 2</b>" in page.by_id("log").text
    assert len([one for one in page.all("img") if "/samples/" in one.get("src")]) == 3
    losses = [[cell.text for cell in row.children] for row in page.all("tr") if row.children[0].text == "30"]
    assert losses == [["30", "0.03391", "0.0001"]]  # two steps a row
    assert "a sks frog" in page.by_id("samples").text and "seed 1338" in page.by_id("samples").text
    headings = [one.text for one in page.by_id("samples").walk() if one.tag == "th" and one.get("scope") == "col"]
    assert headings == ["Prompt", "step 10", "step 20"]


def test_a_webhook_that_was_given_up_is_sent_again(browser: TestClient, other_browser: TestClient, services: Services, caller, csrf) -> None:
    hook = "https://example.org/hook?token=secret"
    job = services.board.create(caller, NewJob(api="console", webhook=hook, webhook_events=("completed",), is_ready=True))
    address = f"/trainings/{job.id}"
    assert "Nothing has been told yet" in Page(browser.get(address).text).by_id("deliveries").text
    services.board.cancel(job.project_id, job.id, "test")
    with services.database.writing() as session:
        session.execute(update(WebhookMessage).values(attempts=1, next_attempt_at=None, last_status=410))
    page = Page(browser.get(address).text)
    assert mistakes_in(page) == [] and "secret" not in page.root.text
    assert all(part in page.by_id("deliveries").text for part in ("Completed", "410", "Given up"))
    [form] = [one for one in page.all("form") if one.get("action").endswith("/retry")]
    others = Page(other_browser.get("/trainings").text).csrf()
    assert other_browser.post(form.get("action"), data={"csrf": others}).status_code == 404
    assert browser.post(f"{address}/deliveries/msg_none/retry", data={"csrf": csrf}).status_code == 404
    part = browser.post(form.get("action"), data={"csrf": csrf}, headers={"HX-Request": "true"})
    assert part.status_code == 200 and "Given up" not in part.text
    [message] = services.deliveries.listed(job.project_id, job.id)
    assert message.next_attempt_at is not None and message.delivered_at is None


def test_a_webhook_of_a_training_that_goes_on_is_shown_as_all_else_is(browser: TestClient, services: Services, caller, csrf) -> None:
    """An answer that comes late could take the place of the news that it has arrived."""
    hook = NewJob(api="console", webhook="https://example.org/hook", webhook_events=("logs",), is_ready=True)
    job = services.board.create(caller, hook)
    assert services.board.advance(job.id, QUEUED, PREPARING)
    services.board.announce_logs(job.id)
    [message] = services.deliveries.listed(job.project_id, job.id)
    with services.database.writing() as session:
        session.execute(update(WebhookMessage).values(attempts=1, next_attempt_at=None, last_status=500))
    answer = browser.post(f"/trainings/{job.id}/deliveries/{message.id}/retry", data={"csrf": csrf}, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.text) == (204, "")
    [message] = services.deliveries.listed(job.project_id, job.id)
    assert message.next_attempt_at is not None


def test_pictures_come_from_the_training_and_from_nowhere_else(browser: TestClient, services: Services, training: Make) -> None:
    job = training()
    folder = services.workshop.folder(job)
    good = f"/trainings/{job.id}/samples/model_000010_00_20260102030405_1337.png"
    answer = browser.get(good)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    (folder.output / "secret.png").write_bytes(b"secret")
    link = folder.samples / "model_000030_00_20260102030405_1.png"
    link.symlink_to(folder.output / "secret.png")
    for name in ("../secret.png", "..%2Fsecret.png", "model_sheet_20260102030907.png", "secret.png", link.name, "model_000099_00_20260102030405.png"):
        assert browser.get(f"/trainings/{job.id}/samples/{name}").status_code == 404, name


def test_files_lead_to_the_store(browser: TestClient, services: Services, training: Make) -> None:
    result = services.settings.data_dir / "output.zip"
    result.write_bytes(b"PK it is")
    stored = services.store.save("jobs/abc/output.zip", result)
    listed = {"name": "checkpoints/output.zip", "size": stored.size, "sha256": "0" * 64, "key": stored.key}
    job = training("succeeded", output={"files": [listed]})
    page = Page(browser.get(f"/trainings/{job.id}").text)
    [link] = [one for one in page.by_id("files").walk() if one.tag == "a"]
    sent = browser.get(link.get("href"))
    assert sent.status_code == 303
    assert browser.get(sent.headers["location"].removeprefix("http://testserver")).content == b"PK it is"
    assert browser.get(f"/trainings/{job.id}/files/other.zip").status_code == 404


def test_loss_and_log_can_be_taken_away(browser: TestClient, training: Make) -> None:
    job = training("succeeded")
    told = browser.get(f"/trainings/{job.id}/loss.json").json()
    assert told["step"] == list(range(1, 31)) and told["loss"][1] == 0.5 and told["rate"][0] == 1e-4
    log = browser.get(f"/trainings/{job.id}/log.txt")
    assert log.text == "step 1\n<b>step 2</b>\n" and "attachment" in log.headers["content-disposition"]


def test_cancel_asks_for_it_and_the_page_shows_it(browser: TestClient, services: Services, training: Make, csrf: str) -> None:
    """Not in the answer to the script, which may come after the news that it is canceled, and would take their place."""
    job = training()
    answer = browser.post(f"/trainings/{job.id}/cancel", data={"csrf": csrf}, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.text) == (204, "")
    assert services.board.get(job.project_id, job.id).is_canceling
    again = browser.post(f"/trainings/{job.id}/cancel", data={"csrf": csrf})
    assert (again.status_code, again.headers["location"]) == (303, f"/trainings/{job.id}")


def test_a_draft_is_discarded(browser: TestClient, services: Services, caller, csrf: str) -> None:
    draft = services.board.create(caller, NewJob(api="console"))
    assert browser.get(f"/trainings/{draft.id}").headers["location"] == f"/trainings/new?draft={draft.id}"
    assert browser.post(f"/trainings/{draft.id}/cancel", data={"csrf": csrf}).headers["location"] == "/trainings"
    assert services.board.get(draft.project_id, draft.id).state == "canceled"


def test_resume_goes_on_from_what_was_saved(browser: TestClient, services: Services, training: Make, csrf: str) -> None:
    job = training("failed", error="the power went")
    without = browser.post(f"/trainings/{job.id}/resume", data={"csrf": csrf})
    assert without.status_code == 409 and "no saved state" in without.text
    assert "Resume" not in Page(browser.get(f"/trainings/{job.id}").text).by_id("status").text
    state = services.workshop.folder(job).output / "model-step00000020-state"
    state.mkdir()
    (state / "train_state.json").write_text("{}", encoding="utf-8")
    assert "Resume" in Page(browser.get(f"/trainings/{job.id}").text).by_id("status").text
    sent = browser.post(f"/trainings/{job.id}/resume", data={"csrf": csrf})
    child = services.board.get(job.project_id, sent.headers["location"].rpartition("/")[2])
    folder = services.workshop.folder(child)
    assert (child.state, child.parent_id, child.resolved) == ("queued", job.id, job.resolved)
    assert folder.has_state() and len(folder.events()) == 1 and len(list(folder.samples.iterdir())) == 4
    assert child.input_key != job.input_key and services.store.head(str(child.input_key)) is not None


def test_resume_without_its_pictures_leaves_no_job_behind(browser: TestClient, services: Services, training: Make, csrf: str) -> None:
    job = training("failed", error="the power went")
    state = services.workshop.folder(job).output / "model-step00000020-state"
    state.mkdir()
    (state / "train_state.json").write_text("{}", encoding="utf-8")
    services.store.delete(str(job.input_key))
    assert browser.post(f"/trainings/{job.id}/resume", data={"csrf": csrf}).status_code == 409
    states = {one.state for one in services.board.page(job.project_id).rows}
    assert states == {"failed", "canceled"}


def test_a_clone_asks_for_the_same(training: Make) -> None:
    job = training()
    inputs = inputs_of(job)
    assert {name: inputs[name] for name in INPUTS if name != "method"} == {name: value for name, value in INPUTS.items() if name != "method"}
    assert from_console.read(inputs).to_json() == (job.resolved or {})["request"]


def test_a_mistake_of_ours_tells_nothing(browser: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a secret path")

    monkeypatch.setattr(services.board, "page", broken)
    answer = browser.get("/trainings")
    assert answer.status_code == 500 and "secret" not in answer.text


@pytest.mark.parametrize("name", ["app.css", "app.js", "chart.js", "vendor/htmx-2.0.11.min.js", "vendor/uplot-1.6.32.min.css", "mark.svg"])
def test_static_files_are_kept_for_ever(name: str, browser: TestClient) -> None:
    answer = TestClient(browser.app).get(f"/static/{name}")
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", ["../rendering.py", "..%2Frendering.py", "vendor/README.md", "nothing.js", "", "vendor"])
def test_no_other_file_is(name: str, browser: TestClient) -> None:
    assert TestClient(browser.app).get(f"/static/{name}").status_code == 404
