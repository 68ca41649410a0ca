"""What tests of the page begin with: a base model, a browser that is signed in, pictures, and a training that has been somewhere."""
from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_html import Page
from page_world import INPUTS, leave_traces, sign_in

from service.database.tables import Job
from service.jobs.board import NewJob
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, QUEUED, SUCCEEDED, TRAINING
from service.keys import Caller
from service.page.again import input_key
from service.services import Services
from service.settings import ServiceSettings
from service.training import from_console
from service.views.taking import checked

BASE = "runwayml/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def base_model(settings: ServiceSettings) -> str:
    """Registered, and never read here."""
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "base.safetensors").touch()
    (settings.data_dir / "models.toml").write_text(f'[models."{BASE}"]\npath = "base.safetensors"\n', encoding="utf-8")
    return BASE


@pytest.fixture
def browser(app: FastAPI, key: str) -> TestClient:
    return sign_in(app, key)


@pytest.fixture
def csrf(browser: TestClient) -> str:
    return Page(browser.get("/trainings").text).csrf()


@pytest.fixture
def other_browser(app: FastAPI, services: Services) -> TestClient:
    """Of another project."""
    return sign_in(app, services.keys.create(services.keys.project("other"), "other"))


@pytest.fixture
def training(services: Services, caller: Caller) -> Callable[..., Job]:
    """A training of the page that has got to a state, with an archive, a log, losses and sample pictures."""

    def make(to: str = TRAINING, error: str | None = None, **changes: object) -> Job:
        resolved = checked(services, from_console.read, INPUTS)
        board = services.board
        job = board.create(caller, NewJob(api="console", name="my-frog", inputs=INPUTS, resolved=resolved.to_json()))
        archive = services.settings.data_dir / "archive.zip"
        archive.write_bytes(b"PK\x05\x06" + bytes(18))
        services.store.save(input_key(job.id), archive)
        board.mark_uploading(job.project_id, job.id, input_key(job.id))
        board.start(job.project_id, job.id)
        state = QUEUED
        path = (PREPARING, TRAINING, BUILDING, PUBLISHING, SUCCEEDED)
        for following in path[: path.index(to) + 1] if to in path else path[:2]:
            done = {"started_at": board.clock()} if following == PREPARING else dict(changes) if following == to else {}
            assert board.advance(job.id, state, following, **done)
            state = following
        if to not in path:
            assert board.advance(job.id, state, to, error=error)
        leave_traces(services, job)
        return board.get(job.project_id, job.id)

    return make
