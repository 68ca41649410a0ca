"""What tests of the command line begin with: a service that listens, a home folder of their own, and `tadpole` in this process."""
from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI

from service.cli.app import main
from service.settings import ServiceSettings
from tests.service.training.small_pictures import write_picture

DEADLINE_SECONDS = 30.0
BASE = "runwayml/stable-diffusion-v1-5"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Tadpole = Callable[..., Ended]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener


@pytest.fixture
def settings(settings: ServiceSettings, listener: socket.socket) -> ServiceSettings:
    """Its links lead to where it listens. A base model is registered, and never read here."""
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "base.safetensors").touch()
    (settings.data_dir / "models.toml").write_text(f'[models."{BASE}"]\npath = "base.safetensors"\n', encoding="utf-8")
    return dataclasses.replace(settings, public_url=f"http://127.0.0.1:{listener.getsockname()[1]}")


@pytest.fixture
def server(app: FastAPI, settings: ServiceSettings, listener: socket.socket) -> Iterator[str]:
    """The address of a service whose background does not run: nothing happens to jobs by itself."""
    running = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not running.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield settings.url
    running.should_exit = True
    thread.join(DEADLINE_SECONDS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in ("TADPOLE_URL", "TADPOLE_API_KEY", "TADPOLE_DATA_DIR", "TADPOLE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def tadpole(home: Path, capsys: pytest.CaptureFixture[str]) -> Tadpole:
    """Run a command; how it ended, and what it printed."""
    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = main(words)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (1, 2):
        write_picture(folder / f"{number}.png", number)
    return folder
