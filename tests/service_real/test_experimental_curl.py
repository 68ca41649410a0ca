"""The experimental DreamBooth API as people used it in the wild: curl."""
from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.service_real.real_service import (
    SHORT,
    TRAINING_SECONDS,
    RealService,
    Receiver,
    archive_of_pictures,
    needed,
    real_service,
    wait_for,
)

DOCUMENTED = {"created_at", "error", "id", "input", "logs", "metrics", "model", "notes", "status", "webhook_completed", "version"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def service(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealService]:
    settings = {"allow_http": True, "allow_private_nets": ["127.0.0.0/8"], "allow_ports": [str(receiver.port)]}
    with real_service(tmp_path_factory.mktemp("service"), **settings) as service:
        yield service


def curl(*words: str, sent: object = None) -> bytes:
    """What curl prints; what is sent goes by its standard input."""
    content = None if sent is None else json.dumps(sent).encode()
    command = [needed("curl", "apt-get install curl"), "--silent", "--show-error", "--fail-with-body", "--max-time", "120", *words]
    ended = subprocess.run(command, input=content, capture_output=True, timeout=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def asking(service: RealService, path: str, *words: str, sent: object = None) -> Any:
    key = ["-H", f"Authorization: Token {service.key}"]
    body = ["-H", "Content-Type: application/json", "-d", "@-"] if sent is not None else []
    return json.loads(curl(*key, *body, *words, f"{service.url}{path}", sent=sent))


@pytest.mark.parametrize("root", ["/v1", "/dreambooth/v1"])
def test_upload_train_poll_webhook(root: str, service: RealService, receiver: Receiver, tmp_path: Path) -> None:
    archive = archive_of_pictures(tmp_path)
    places = asking(service, f"{root}/upload/data.zip", "-X", "POST")
    curl("-X", "PUT", "-H", "Content-Type: application/zip", "--upload-file", str(archive), places["upload_url"])
    name = f"frog{root.replace('/', '-')}"
    body = {
        "input": {**SHORT, "instance_data": places["serving_url"]}, "model": f"default/{name}", "notes": "notes about this training",
        "webhook_completed": receiver.url(f"/{name}?mine=1"),
    }  # fmt: skip
    made = asking(service, f"{root}/trainings", sent=body)
    assert {"id", "status", "created_at", "input", "model"} <= made.keys()

    def ended() -> dict[str, Any] | None:
        training = asking(service, f"{root}/trainings/{made['id']}")
        return training if training["status"] in ("succeeded", "failed", "canceled") else None

    done = wait_for(ended, TRAINING_SECONDS, f"training {made['id']}")
    assert (done["status"], done["error"]) == ("succeeded", None), service.log(made["id"])
    assert done.keys() >= DOCUMENTED and done["metrics"]["predict_time"] > 0
    assert (done["model"], done["notes"]) == (f"default/{name}", "notes about this training")
    with zipfile.ZipFile(io.BytesIO(curl(done["output"]["weights"]))) as output:
        assert {"model_index.json", "args.json", "samples/0.png"} <= set(output.namelist())
    message = receiver.last(f"/{name}?mine=1", "succeeded")
    secret = asking(service, "/v1/webhooks/default/secret")["key"]
    told = Webhook(secret).verify(message.body, message.headers)
    assert (told["id"], told["status"], told["webhook_completed"]) == (made["id"], "succeeded", receiver.url(f"/{name}?mine=1"))
    assert len([found for found in receiver.deliveries if found.path == f"/{name}?mine=1"]) == 1  # of its end only


def test_the_model_is_there_afterwards(service: RealService) -> None:
    """This API makes the model that a training names."""
    asking(service, "/v1/trainings", sent={"input": {**SHORT, "instance_data": "data:application/zip;base64,UEsFBg=="}, "model": "default/later"})
    assert asking(service, "/v1/models/default/later")["owner"] == "default"


def test_a_training_of_no_pictures_fails_and_says_why(service: RealService) -> None:
    inputs = {**SHORT, "instance_data": "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="}  # a zip file of nothing
    made = asking(service, "/v1/trainings", sent={"input": inputs, "model": "default/nothing", "webhook": None})
    job = service.over(made["id"])
    assert job["state"] == "failed" and "picture" in job["error"]
