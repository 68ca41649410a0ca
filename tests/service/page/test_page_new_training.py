"""A new training on the page: pictures looked at, mistakes told beside their fields, the same as requests, the job that is started."""
from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from graphql import parse
from page_html import Page, mistakes_in
from page_world import INPUTS, png
from PIL import Image

from library.config.text_files import tomllib
from service.jobs.board import NewJob
from service.page.pictures import plain_name
from service.services import Services
from service.training import from_cerebrium, from_replicate
from service.training.request import TrainingRequest

HTMX = {"HX-Request": "true"}
WRITTEN = {
    "name": "my-frog", "method": "dreambooth", "instance_prompt": "a sks frog", "class_prompt": "a frog", "with_prior_preservation": "on",
    "train_text_encoder": "on", "max_train_steps": "30",
}  # fmt: skip


def drop(browser: TestClient, csrf: str, files: list[tuple[str, bytes]], **more: Any):
    sent = [("files", (name, content, "application/octet-stream")) for name, content in files]
    return browser.post("/trainings/new/pictures", data={"csrf": csrf, **more.pop("data", {})}, files=sent, **more)


def draft_in(answer: Any) -> str:
    return Page(answer.text).all("input", name="draft")[0].get("value")


def zipped(**files: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return archive.getvalue()


def test_dropped_pictures_become_a_draft_with_a_preview(browser: TestClient, services: Services, caller, csrf: str) -> None:
    answer = drop(browser, csrf, [("a.png", png(96)), ("b.png", png(600)), ("a.txt", b"a frog on a stone"), ("c.png", b"no picture")], headers=HTMX)
    assert answer.status_code == 200 and "<html" not in answer.text
    page = Page(answer.text)
    draft = services.board.get(caller.project_id, draft_in(answer))
    assert (draft.api, draft.state) == ("console", "uploading")
    assert "2 pictures" in page.root.text and "only 2 of 3" in page.root.text
    assert "left out: c.png" in page.root.text
    first, second = [one for one in page.all("li") if one.get("class").startswith("picture")]
    assert "96 × 96" in first.text and "small" in first.text and "a frog on a stone" in first.text
    assert "600 × 600" in second.text and "small" not in second.text
    picture = browser.get(next(one for one in second.walk() if one.tag == "img").get("src"))
    assert Image.open(io.BytesIO(picture.content)).size == (320, 320)  # a small copy
    with services.store.open(str(draft.input_key)) as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
        assert sorted(archive.namelist()) == ["a.png", "a.txt", "b.png", "c.png"]


def test_without_scripts_the_draft_stands_in_the_address(browser: TestClient, csrf: str) -> None:
    sent = drop(browser, csrf, [("a.png", png())])
    assert sent.status_code == 303 and sent.headers["location"].startswith("/trainings/new?draft=")
    page = Page(browser.get(sent.headers["location"]).text)
    assert mistakes_in(page) == []
    assert page.all("input", name="draft")[0].get("form") == "training"


def test_a_zip_may_have_pictures_of_the_class(browser: TestClient, csrf: str) -> None:
    archive = zipped(**{"frog.png": png(), "dataset_class/other.png": png()})
    page = Page(drop(browser, csrf, [("frogs.zip", archive)], headers=HTMX).text)
    assert [one.text for one in page.all("h3")] == ["Your pictures", "Pictures of the class"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "choose pictures"),
        ([("a.png", b"no picture")], "no usable picture"),
        ([("a.zip", b"no zip")], "zip"),
        ([("a.zip", zipped(**{"../evil.png": png()}))], "evil"),
        ([("a.zip", zipped(**{"a.png": png()})), ("b.png", png())], "not both at once"),
    ],
    ids=["none", "no picture", "no zip", "slip", "both"],
)
def test_what_is_wrong_with_pictures_is_told_beside_them(
    files: list[tuple[str, bytes]], told: str, browser: TestClient, services: Services, caller, csrf: str
) -> None:
    part = drop(browser, csrf, files or [("", b"")], headers=HTMX)
    whole = drop(browser, csrf, files or [("", b"")])
    for answer in (part, whole):
        page = Page(answer.text)
        assert answer.status_code == 422
        assert told in page.by_id("files-mistake").text
        assert page.by_id("files").get("aria-invalid") == "true"
    assert mistakes_in(Page(whole.text)) == []
    assert services.board.page(caller.project_id).rows == []


def test_two_files_of_a_name_are_both_kept(browser: TestClient, csrf: str) -> None:
    page = Page(drop(browser, csrf, [("a/x.png", png()), ("b/x.png", png()), ("X.PNG", png())], headers=HTMX).text)
    assert "3 pictures" in page.root.text


@pytest.mark.parametrize("name", ["../../x.png", "C:\\x.png", "..", "", "\0.png", "a\nb.png", "é" * 300 + ".png", ".png", "con?.png"])
def test_names_of_dropped_files_are_plain(name: str) -> None:
    plain = plain_name(name, 7)
    assert plain and "/" not in plain and "\\" not in plain and plain.isprintable() and ".." not in plain
    assert len(plain.encode()) < 200


def start(browser: TestClient, csrf: str, **changes: str):
    data = {"csrf": csrf, **WRITTEN, **changes}
    return browser.post("/trainings", data={name: value for name, value in data.items() if value != "-"})


def test_a_training_is_started_once(browser: TestClient, services: Services, caller, csrf: str) -> None:
    draft = draft_in(drop(browser, csrf, [("a.png", png())], headers=HTMX))
    sent = start(browser, csrf, draft=draft)
    assert (sent.status_code, sent.headers["location"]) == (303, f"/trainings/{draft}")
    job = services.board.get(caller.project_id, draft)
    assert (job.state, job.name, job.api) == ("queued", "my-frog", "console")
    request = TrainingRequest.from_json((job.resolved or {})["request"])
    assert {name: getattr(request, name) for name in INPUTS} == INPUTS
    again = start(browser, csrf, draft=draft, name="another")
    assert again.headers["location"] == f"/trainings/{draft}"
    assert services.board.get(caller.project_id, draft).name == "my-frog"


def test_every_mistake_stands_beside_its_field(browser: TestClient, services: Services, caller, csrf: str) -> None:
    draft = draft_in(drop(browser, csrf, [("a.png", png())], headers=HTMX))
    answer = start(
        browser, csrf, draft=draft, name="../evil", instance_prompt="", resolution="65", **{"advanced.noise_offset": "much"}
    )
    page = Page(answer.text)
    assert answer.status_code == 422 and mistakes_in(page) == []
    for name, told in {
        "f-name": "is no name", "f-instance-prompt": "needed and missing", "f-resolution": "not a multiple",
        "f-advanced-noise-offset": "number",
    }.items():  # fmt: skip
        field = page.by_id(name)
        assert field.get("aria-invalid") == "true"
        assert told in page.by_id(f"{name}-mistake").text
        assert f"{name}-mistake" in field.get("aria-describedby")
        assert f"#{name}" in [one.get("href") for one in page.by_id("mistakes").walk()]
    assert page.by_id("f-name").get("value") == "../evil"
    assert page.by_id("f-class-prompt").text == "a frog"
    assert "open" in next(one for one in page.all("details") if "advanced" in one.get("class")).attributes
    assert page.all("input", name="draft")[0].get("value") == draft
    assert services.board.get(caller.project_id, draft).state == "uploading"


def test_options_that_do_not_go_together_are_told(browser: TestClient, csrf: str) -> None:
    draft = draft_in(drop(browser, csrf, [("a.png", png())], headers=HTMX))
    answer = start(browser, csrf, draft=draft, **{"advanced.noise_offset": "0.1", "advanced.ema_decay": "0.9"})
    page = Page(answer.text)
    assert answer.status_code == 422
    assert "no effect without ema" in page.by_id("f-advanced-ema-decay-mistake").text
    assert not page.by_id("f-advanced-noise-offset").get("aria-invalid")


def test_where_too_many_wait_the_form_is_not_lost(browser: TestClient, services: Services, caller, csrf: str) -> None:
    for _ in range(services.settings.queued_jobs_per_project):
        services.board.create(caller, NewJob(api="console", is_ready=True))
    draft = draft_in(drop(browser, csrf, [("a.png", png())], headers=HTMX))
    answer = start(browser, csrf, draft=draft)
    page = Page(answer.text)
    assert answer.status_code == 429 and "which is the limit" in page.by_id("mistakes").text
    assert page.by_id("f-name").get("value") == "my-frog" and page.all("input", name="draft")


def test_there_is_no_training_without_pictures(browser: TestClient, csrf: str) -> None:
    answer = start(browser, csrf)
    assert answer.status_code == 422
    assert "choose the pictures first" in Page(answer.text).by_id("mistakes").text


def test_a_draft_of_another_api_or_project_is_none(browser: TestClient, other_browser: TestClient, csrf: str) -> None:
    draft = draft_in(drop(browser, csrf, [("a.png", png())], headers=HTMX))
    theirs = Page(other_browser.get("/trainings").text).csrf()
    assert start(other_browser, theirs, draft=draft).status_code == 404


def test_a_preset_changes_what_it_is_for_and_leaves_the_rest(browser: TestClient, csrf: str) -> None:
    answer = browser.post("/trainings/new/preset", data={"csrf": csrf, **WRITTEN, "preset": "style"})
    page = Page(answer.text)
    assert answer.status_code == 200 and mistakes_in(page) == []
    chosen = [one.get("value") for one in page.by_id("f-method").children if "selected" in one.attributes]
    assert chosen == ["lora"]
    assert page.by_id("f-max-train-steps").get("value") == "3000"
    assert page.by_id("f-advanced-network-dim").get("value") == "16"
    assert page.by_id("f-instance-prompt").text == "a sks frog"
    assert "checked" not in page.by_id("f-with-prior-preservation").attributes


def test_a_preset_takes_back_what_another_has_set(browser: TestClient, csrf: str) -> None:
    """A learning rate for the whole model would teach a LoRA nothing."""
    written = {**WRITTEN, "learning_rate": "2e-6", "advanced.network_dim": "16", "advanced.network_dropout": "0.1"}
    page = Page(browser.post("/trainings/new/preset", data={"csrf": csrf, **written, "preset": "trial"}).text)
    assert page.by_id("f-learning-rate").get("value") == page.by_id("f-advanced-network-dim").get("value") == ""
    assert page.by_id("f-advanced-network-dropout").get("value") == "0.1"
    assert [one.get("value") for one in page.all("button") if one.get("aria-current")] == ["trial"]
    written = {**WRITTEN, "learning_rate": "3e-6"}
    page = Page(browser.post("/trainings/new/preset", data={"csrf": csrf, **written, "preset": "none"}).text)
    assert [one for one in page.all("button") if one.get("aria-current")] == []


def texts_of(answer: Any) -> dict[str, str]:
    page = Page(answer.text)
    return {one.get("id").removeprefix("request-"): one.text for one in page.all("pre")}


def test_the_same_as_requests(browser: TestClient, csrf: str) -> None:
    prompt = 'a "sks" frog\'s $(touch x)'
    answer = browser.post("/trainings/new/request", data={"csrf": csrf, **WRITTEN, "instance_prompt": prompt}, headers=HTMX)
    assert answer.status_code == 200 and "<html" not in answer.text
    texts = texts_of(answer)
    assert set(texts) == {"curl", "graphql", "toml"}
    body = texts["curl"].split("--data-binary '")[-1].rstrip("'").replace("'\"'\"'", "'")
    assert json.loads(body)["input"]["instance_prompt"] == prompt
    assert f"instance_prompt: {json.dumps(prompt)}" in texts["graphql"] and "jobType: dreambooth" in texts["graphql"]
    run = tomllib.loads(texts["toml"])
    assert run["max_train_steps"] == 30
    assert run["pretrained_model_name_or_path"] == "runwayml/stable-diffusion-v1-5"


def test_requests_show_no_place_of_this_machine(browser: TestClient, services: Services, csrf: str) -> None:
    answer = browser.post("/trainings/new/request", data={"csrf": csrf, **WRITTEN})
    assert answer.status_code == 200 and mistakes_in(Page(answer.text)) == []
    assert str(services.settings.data_dir) not in answer.text


def test_the_words_of_the_apis_mean_the_same(browser: TestClient, services: Services, csrf: str) -> None:
    texts = texts_of(browser.post("/trainings/new/request", data={"csrf": csrf, **WRITTEN, "seed": "7"}, headers=HTMX))
    body = json.loads(texts["curl"].split("--data-binary '")[-1].rstrip("'"))
    ours = from_replicate.read(body["input"])
    assert (ours.seed, ours.max_train_steps, ours.with_prior_preservation, ours.class_prompt) == (7, 30, True, "a frog")
    assert len(parse(texts["graphql"]).definitions) == 3


def test_a_lora_is_shown_for_the_command_line(browser: TestClient, csrf: str) -> None:
    data = {**WRITTEN, "method": "lora", "advanced.network_dim": "8"}
    answer = browser.post("/trainings/new/request", data={"csrf": csrf, **data}, headers=HTMX)
    texts = texts_of(answer)
    assert set(texts) == {"config", "toml"}
    assert "no words for advanced.network_dim" in answer.text
    request = from_cerebrium.read(yaml.safe_load(texts["config"]))
    assert (request.method, request.instance_prompt, request.max_train_steps) == ("lora", "a sks frog", 30)
    assert tomllib.loads(texts["toml"])["network_dim"] == 8


def test_there_is_no_request_of_mistakes(browser: TestClient, csrf: str) -> None:
    answer = browser.post("/trainings/new/request", data={"csrf": csrf, **WRITTEN, "resolution": "65"}, headers=HTMX)
    page = Page(answer.text)
    assert "#f-resolution" in [one.get("href") for one in page.all("a")] and page.all("pre") == []


def test_a_clone_can_use_the_same_pictures(browser: TestClient, services: Services, caller, csrf: str) -> None:
    first = draft_in(drop(browser, csrf, [("a.png", png()), ("b.png", png())], headers=HTMX))
    start(browser, csrf, draft=first)
    page = Page(browser.get(f"/trainings/new?like={first}").text)
    assert page.by_id("f-name").get("value") == "my-frog" and "Use the pictures of my-frog" in page.root.text
    sent = browser.post("/trainings/new/pictures", data={"csrf": csrf, "like": first, "use": "parent"})
    second = services.board.get(caller.project_id, sent.headers["location"].split("draft=")[1].split("&")[0])
    assert second.parent_id == first and second.input_key != services.board.get(caller.project_id, first).input_key
    assert "2 pictures" in browser.get(sent.headers["location"]).text


def test_a_service_without_models_says_so(browser: TestClient, services: Services) -> None:
    (services.settings.data_dir / "models.toml").write_text("", encoding="utf-8")
    assert "No base model is registered" in browser.get("/trainings/new").text
    (services.settings.data_dir / "models.toml").write_text("[models", encoding="utf-8")
    assert browser.get("/trainings/new").status_code == 503
