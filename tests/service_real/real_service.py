"""A service as an operator runs it: a process of its own, whose jobs are real trainings of the embedded base. And who it talks to."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from tests.service.training.small_pictures import write_picture

ROOT = Path(__file__).resolve().parents[2]
BASE = "runwayml/stable-diffusion-v1-5"  # what clients ask for: here it is the embedded base
START_SECONDS, TRAINING_SECONDS = 120.0, 540.0
SHORT = {  # inputs in Replicate's words of a training that ends in seconds
    "instance_prompt": "a photo of a sks frog", "class_prompt": "a photo of a frog", "with_prior_preservation": False, "max_train_steps": 2,
    "resolution": 64, "learning_rate": 1e-5, "n_save_sample": 1, "save_sample_prompt": "a sks frog", "save_infer_steps": 2,
}  # fmt: skip


class RealService:
    """A running service with the settings that are given, its address, and its first key.

    `beside`: another one (which may be dead), whose data folder, settings and key this one has, too.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str] | None = None, beside: RealService | None = None, **settings: object
    ) -> None:  # fmt: skip
        self.data, self.output = beside.data if beside else folder / "data", folder / "output.txt"
        folder.mkdir(parents=True, exist_ok=True)
        if beside is None:
            self._write_settings({"sandbox": "never", **settings})
        self._file = self.output.open("wb")
        command = [sys.executable, "-m", "service.serve", "--data_dir", str(self.data), "--port", "0"]
        whole = {**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=folder, env=whole, stdout=self._file, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: "startup complete" in self.text() or self.process.poll() is not None, START_SECONDS, "the service to start")
            assert self.process.poll() is None, self.text()
            self.url = f"http://127.0.0.1:{self._port()}"
            self.key = beside.key if beside else re.findall(r"tadpole_[a-z0-9]+_[A-Za-z0-9]+", self.text())[0]
        except BaseException:
            self.close()
            raise

    def _port(self) -> int:
        """The one that it was given: what it says of its address may be the public one."""
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        (port,) = {found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN}
        return int(port)

    def _write_settings(self, settings: Mapping[str, object]) -> None:
        self.data.mkdir(parents=True)
        models = f"[models.{json.dumps(BASE)}]\npath = {json.dumps(str(ROOT / 'assets' / 'base'))}\n"
        (self.data / "models.toml").write_text(models, encoding="utf-8")
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (self.data / "service.toml").write_text("".join(lines), encoding="utf-8")

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}{path}", headers={"Authorization": self.key}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers={"Authorization": self.key, **headers}, timeout=60)

    def over(self, job_id: str) -> dict[str, Any]:
        """The job when it is over."""
        def ended() -> dict[str, Any] | None:
            job = self.get(f"/v1/jobs/{job_id}")
            return job if job["completed_at"] else None

        return wait_for(ended, TRAINING_SECONDS, f"job {job_id} to end")

    def log(self, job_id: str) -> str:
        return str(self.get(f"/v1/jobs/{job_id}/logs")["text"])

    def close(self) -> None:
        """Its jobs end with it: what runs is canceled first."""
        if self.process.poll() is None and hasattr(self, "key"):
            jobs = [folder.name for folder in (self.data / "jobs").glob("*")]  # of all that have begun
            for job_id in jobs:
                self.post(f"/v1/jobs/{job_id}/cancel", {})
            wait_for(lambda: all(self.get(f"/v1/jobs/{job_id}")["completed_at"] for job_id in jobs), 120, "jobs to end")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._file.close()


class Delivery(NamedTuple):
    path: str
    headers: dict[str, str]
    body: str


class Receiver:
    """Takes webhooks, and answers them all with 200."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        deliveries = self.deliveries

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.append(Delivery(self.path, {name.lower(): value for name, value in self.headers.items()}, body.decode()))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def last(self, path: str, status: str) -> Delivery:
        """The message of this status that came to this path."""
        def find() -> Delivery | None:
            fitting = [found for found in self.deliveries if found.path == path and json.loads(found.body)["status"] == status]
            return fitting[-1] if fitting else None

        return wait_for(find, 60, f"a webhook of {status} at {path}")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def real_service(folder: Path, environment: Mapping[str, str] | None = None, **settings: object) -> Iterator[RealService]:
    service = RealService(folder, environment, **settings)
    try:
        yield service
    finally:
        service.close()


def wait_for(what: Callable[[], Any], seconds: float, name: str) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {name}"
        time.sleep(0.2)
    return answer


def needed(program: str, advice: str) -> str:
    """The path of a program. One that is missing is a failure."""
    found = shutil.which(program)
    assert found is not None, f"there is no {program}: {advice}"
    return found


def needed_variable(name: str, advice: str) -> str:
    """What `.ci/real` has set."""
    value = os.environ.get(name)
    assert value and Path(value).exists(), f"{name} names no program: {advice}"
    return value


def run_client(command: list[str], asked: Mapping[str, object], environment: Mapping[str, str]) -> Any:
    """What a client's program answers: it reads JSON, and prints JSON as its last line."""
    whole = {**os.environ, **environment}
    whole.pop("PYTHONPATH", None)
    ended = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, encoding="utf-8", env=whole, timeout=TRAINING_SECONDS + 60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def archive_of_pictures(folder: Path, wrapped_in: str = "") -> Path:
    """A zip file of three pictures."""
    path = folder / "frog.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in (1, 2, 3):
            write_picture(folder / "to_zip" / f"{number}.png", number)
            archive.write(folder / "to_zip" / f"{number}.png", f"{wrapped_in}{number}.png")
    return path
