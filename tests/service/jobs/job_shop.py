"""A service that works on jobs, with a trainer package that is a small script."""
from __future__ import annotations

import dataclasses
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from service.app import create_app
from service.database.tables import Job
from service.jobs.board import NewJob
from service.jobs.states import FINAL
from service.keys import Caller
from service.services import Services
from service.settings import ServiceSettings
from tests.service.waiting import wait_until

# Packs the names of its pictures, and prints; "wait" waits, "fail" fails, "full" finds no room.
SCRIPT = """
import json, sys, time, zipfile
from pathlib import Path
inputs, instance, output = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3])
print("10%\\r100%", flush=True)
print("training with tadpole_abcdefghij_secret9", flush=True)
if inputs["kind"] == "fail":
    sys.exit("error: this cannot be trained")
if inputs["kind"] == "full":
    raise OSError(28, "No space left on device")
while inputs["kind"] == "wait":
    time.sleep(0.05)
with zipfile.ZipFile(output, "w") as archive:
    archive.writestr("pictures.json", json.dumps(sorted(path.name for path in instance.iterdir())))
"""


def pictures(count: int = 3, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            picture = io.BytesIO()
            Image.new("RGB", (64, 64), (number * 20, 0, 0)).save(picture, "png")
            archive.writestr(f"frog {number}.png", picture.getvalue())
        for name, content in more.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


class Shop:
    """A service that works, and its caller."""

    def __init__(self, app: FastAPI, client: TestClient, caller: Caller) -> None:
        self.client, self.caller = client, caller
        self.services: Services = app.state.services

    def job(self, kind: str = "pack", archive: bytes | None = None, api: str = "dreambooth", start: bool = True) -> str:
        """One whose archive is uploaded, started unless told otherwise."""
        job = self.services.board.create(self.caller, NewJob(api, inputs={"kind": kind}, details={"trainer_version": "toy-1"}))
        if archive is not None:
            key = f"jobs/{job.id}/input.zip"
            answer = self.client.put(self.services.store.put_url(key, max_bytes=10**7), content=archive)
            assert (answer.status_code, answer.content) == (200, b"")
            assert self.services.board.mark_uploading(self.caller.project_id, job.id, key)
        return self.start(job.id) if start else job.id

    def start(self, job_id: str) -> str:
        return self.services.board.start(self.caller.project_id, job_id).id

    def get(self, job_id: str) -> Job:
        return self.services.board.get(self.caller.project_id, job_id)

    def end(self, job_id: str) -> Job:
        wait_until(lambda: self.get(job_id).state in FINAL)
        return self.get(job_id)


@contextmanager
def open_shop(settings: ServiceSettings) -> Iterator[Shop]:
    package = settings.data_dir / "trainers" / "toy"
    package.mkdir(parents=True)
    (package / "train.py").write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, "{package}/train.py", "{inputs}", "{instance}", "{output}/output.zip"]
    text = f'name = "me/toy"\nversions = ["toy-1"]\ncommand = {json.dumps(words)}\n[inputs.kind]\n'
    (package / "trainer.toml").write_text(text, encoding="utf-8")
    app = create_app(dataclasses.replace(settings, cancel_grace_seconds=0.2, sandbox="never", running_jobs=2))
    keys = app.state.services.keys
    key = keys.create(keys.project("default"), "test")
    with TestClient(app, headers={"Authorization": key}) as client:
        caller = keys.check(key)
        assert caller is not None
        yield Shop(app, client, caller)
