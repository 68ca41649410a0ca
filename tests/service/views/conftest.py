"""What tests of the views begin with: a registered base model, an archive, a server that real clients reach."""
from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.database.tables import Job
from service.jobs.board import JobBoard
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, QUEUED, SUCCEEDED, TRAINING
from service.services import Services
from service.settings import ServiceSettings

BASE = "runwayml/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def base_model(settings: ServiceSettings) -> str:
    """Registered, and never read here."""
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "base.safetensors").touch()
    (settings.data_dir / "models.toml").write_text(f'[models."{BASE}"]\npath = "base.safetensors"\n', encoding="utf-8")
    return BASE


@pytest.fixture
def stranger(app, services: Services) -> TestClient:
    """Of another project."""
    key = services.keys.create(services.keys.project("other"), "other")
    return TestClient(app, headers={"Authorization": f"Token {key}"})


@pytest.fixture
def drive(services: Services) -> Callable[..., Job]:
    """Leads a queued job through its stages as a worker does, to the end or up to a state."""
    board: JobBoard = services.board

    def go(job_id: str, to: str = SUCCEEDED, **changes: object) -> Job:
        project_id = services.keys.project("default")
        state = board.get(project_id, job_id).state
        path = (QUEUED, PREPARING, TRAINING, BUILDING, PUBLISHING, SUCCEEDED)
        for following in path[path.index(state) + 1 : path.index(to) + 1]:
            done = changes if following == SUCCEEDED else {"started_at": board.clock()} if following == PREPARING else {}
            assert board.advance(job_id, state, following, **done)
            state = following
        return board.get(project_id, job_id)

    return go
