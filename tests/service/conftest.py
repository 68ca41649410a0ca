"""What tests of the service begin with: a database, the services on it, a key, a client."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from service_databases import POSTGRESQL, fresh_database

from service.app import create_app
from service.database.engine import Database
from service.keys import Caller
from service.services import Services
from service.settings import ServiceSettings

OF_DATABASES = {"database", "settings", "world"}  # fixtures that begin with a fresh one


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL, only what asks a database tells anything new: all else goes as it does without."""
    if POSTGRESQL:
        chosen = [bool(OF_DATABASES.intersection(getattr(item, "fixturenames", ()))) for item in items]
        config.hook.pytest_deselected(items=[item for item, is_chosen in zip(items, chosen, strict=True) if not is_chosen])
        items[:] = [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_database(tmp_path / "data") as url:
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[ServiceSettings]:
    with fresh_database(tmp_path / "data") as url:
        yield ServiceSettings(data_dir=tmp_path / "data", database_url=url, public_url="http://testserver", allow_http=True)


@pytest.fixture
def app(settings: ServiceSettings) -> Iterator[FastAPI]:
    app = create_app(settings)
    yield app
    app.state.services.database.close()


@pytest.fixture
def services(app: FastAPI) -> Services:
    return app.state.services


@pytest.fixture
def key(services: Services) -> str:
    return services.keys.create(services.keys.project("default"), "test")


@pytest.fixture
def caller(services: Services, key: str) -> Caller:
    found = services.keys.check(key)
    assert found is not None
    return found


@pytest.fixture
def client(app: FastAPI, key: str) -> TestClient:
    """Signs its requests. What works in the background does not run."""
    return TestClient(app, headers={"Authorization": f"Bearer {key}"})
