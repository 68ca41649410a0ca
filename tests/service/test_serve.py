"""The service as a process: its address, its first key, its end."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.app import create_app
from service.jobs.board import NewJob
from service.serve import main
from service.settings import ServiceSettings
from service.training.first_models import EMBEDDED, write_first_models
from service.training.models import read_models

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60.0


class Served:
    """A running service, what it has printed, and its address."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self._file = self.output.open("wb")
        command = [sys.executable, "-m", "service.serve", "--port", "0", "--data_dir", str(folder / "data"), "--sandbox", "never"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=self._file, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "startup complete" not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)
        self.url = re.findall(r"http://127\.0\.0\.1:\d+", self.text())[0]

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def keys(self) -> list[str]:
        return re.findall(r"tadpole_[a-z0-9]+_[A-Za-z0-9]+", self.text())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.close()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
def test_the_first_start_shows_a_key_and_the_end_waits_for_no_follower(served: Served, tmp_path: Path) -> None:
    (key,) = served.keys()
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{served.url}/v1/jobs/x", headers=headers).status_code == 404
    assert httpx.get(f"{served.url}/v1/jobs/x").status_code == 401
    job_id = waiting_job(tmp_path)
    with httpx.stream("GET", f"{served.url}/v1/jobs/{job_id}/logs/stream", headers=headers, timeout=DEADLINE_SECONDS) as follower:
        assert follower.status_code == 200
        assert served.stop() == 0
    assert served.text().count(key) == 1
    assert f"Its page: open {served.url} in a browser" in served.text()
    models_file = tmp_path / "data" / "models.toml"
    assert str(models_file) in served.text()
    assert read_models(models_file).default == EMBEDDED
    models_file.unlink()  # as somebody may who wants none
    second = Served(tmp_path)
    try:
        assert second.keys() == []
        assert not models_file.exists()
        assert httpx.get(f"{second.url}/v1/jobs/{job_id}", headers=headers).json()["state"] == "created"
    finally:
        second.close()


def waiting_job(folder: Path) -> str:
    services = create_app(ServiceSettings(data_dir=folder / "data")).state.services
    caller = services.keys.check(services.keys.create(services.keys.project("default"), "mine"))
    job_id = services.board.create(caller, NewJob("tiyaro")).id
    services.database.close()
    return job_id


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["--data_dir", str(tmp_path), "--port", str(other.getsockname()[1])]) == 2
    assert "name another --port" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_connections_live_on_while_clients_and_proxies_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask every 5, 10 or 60 seconds, proxies keep connections for 60: one that is closed just then loses a request."""
    made: list[uvicorn.Config] = []

    class NoServer:
        def __init__(self, config: uvicorn.Config) -> None:
            made.append(config)

        def run(self, sockets: list[socket.socket]) -> None:
            sockets[0].close()

    monkeypatch.setattr(uvicorn, "Server", NoServer)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(["--data_dir", str(tmp_path), "--port", "0"]) == 0
    assert made[0].timeout_keep_alive > 60


def test_the_first_list_of_base_models(tmp_path: Path) -> None:
    models_file = tmp_path / "models.toml"
    assert not write_first_models(models_file, tmp_path / "installed without it")
    assert write_first_models(models_file)
    models = read_models(models_file)
    assert (list(models.models), models.default) == ([EMBEDDED], EMBEDDED)
    assert (models.models[EMBEDDED].path / "model_index.json").is_file()
    own = models_file.read_text(encoding="utf-8").replace("# [models", "[models").replace("# path", "path")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/sd15.safetensors").touch()
    models_file.write_text(own, encoding="utf-8")
    assert not write_first_models(models_file)
    assert list(read_models(models_file).models) == [EMBEDDED, "runwayml/stable-diffusion-v1-5"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["--prot", "1"], "--prot: unknown option"), (["--allow_private_nets", "all"], "setting allow_private_nets: 'all'")],
)
def test_mistakes_of_the_operator(argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data_dir", str(tmp_path), "--port", "0", *argv]) == 2
    assert said in capsys.readouterr().err
