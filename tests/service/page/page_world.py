"""What tests of the page work with: a browser that is signed in, pictures, the traces that a training leaves."""
from __future__ import annotations

import io
import json
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_html import Page
from PIL import Image

from service.database.tables import Job
from service.jobs.states import TRAINING
from service.services import Services

INPUTS = {
    "name": "my-frog", "method": "dreambooth", "instance_prompt": "a sks frog", "class_prompt": "a frog", "with_prior_preservation": True,
    "max_train_steps": 30,
}  # fmt: skip


def sign_in(app: FastAPI, key: str) -> TestClient:
    browser = TestClient(app, follow_redirects=False)
    door = Page(browser.get("/login").text)
    assert browser.post("/login", data={"csrf": door.csrf(), "key": key, "next": "/trainings"}).status_code == 303
    return browser


def png(side: int = 96, color: str = "green") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "PNG")
    return file.getvalue()


def leave_traces(services: Services, job: Job, steps: int = 30) -> None:
    folder = services.workshop.folder(job)
    folder.samples.mkdir(parents=True)
    folder.log(TRAINING).parent.mkdir(parents=True)
    folder.log(TRAINING).write_text("step 1\n<b>step 2</b>\n", encoding="utf-8")
    for name in ("model_000010_00_20260102030405_1337", "model_000020_00_20260102030406_1337", "model_000020_01_20260102030406_1338"):
        (folder.samples / f"{name}.png").write_bytes(png())
    (folder.samples / "model_sheet_20260102030907.png").write_bytes(png())
    write_events(folder.output / "model-runs" / "20260102030405" / "events.jsonl", range(1, steps + 1))


def write_events(path: Path, steps: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    events = [{"event": "start", "step": 0, "last_step": 30, "time": 0.0}]
    events += [{"event": "step", "step": step, "loss": 1 / step, "lr": {"unet": 1e-4, "text": 5e-5}, "time": float(step)} for step in steps]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
