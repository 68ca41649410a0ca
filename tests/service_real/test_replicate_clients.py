"""Replicate's own clients, unmodified, against trainings of the embedded base. `.ci/real` installs each in a place of its own."""
from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from service.trainers import OUR_NAME, OUR_VERSION
from tests.service_real.real_service import (
    SHORT,
    RealService,
    Receiver,
    archive_of_pictures,
    needed,
    needed_variable,
    real_service,
    run_client,
)

CLIENTS = Path(__file__).resolve().parent / "clients"
ADVICE = "run .ci/real, which installs it"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def service(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealService]:
    settings = {"allow_http": True, "allow_private_nets": ["127.0.0.0/8"], "allow_ports": [str(receiver.port)], "cancel_grace_seconds": 20.0}
    with real_service(tmp_path_factory.mktemp("service"), **settings) as service:
        yield service


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return archive_of_pictures(tmp_path)


def asked(service: RealService, receiver: Receiver, archive: Path, name: str) -> dict[str, Any]:
    return {
        "key": service.key, "base_url": f"{service.url}/v1", "version": f"{OUR_NAME}:{OUR_VERSION}", "destination": f"default/{name}",
        "archive": str(archive), "input": SHORT, "webhook": receiver.url(f"/{name}?who=me"),
    }  # fmt: skip


def assert_trained(weights: str, service: RealService, job_id: str) -> None:
    """The model that came of it: in Diffusers layout, with a picture that it has drawn."""
    answer = httpx.get(weights, timeout=120)
    assert answer.status_code == 200, service.log(job_id)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = set(archive.namelist())
        arguments = json.loads(archive.read("args.json"))
        picture = archive.read("samples/0.png")
    assert "model_index.json" in names and any(re.fullmatch(r"unet/.*\.safetensors", name) for name in names)
    assert (arguments["instance_prompt"], arguments["max_train_steps"]) == (SHORT["instance_prompt"], 2)
    assert picture.startswith(b"\x89PNG")


def test_python_stable(service: RealService, receiver: Receiver, archive: Path) -> None:
    python = needed_variable("REPLICATE_STABLE_PYTHON", ADVICE)
    command, environment = [python, str(CLIENTS / "replicate_stable.py")], {"REPLICATE_API_TOKEN": service.key, "REPLICATE_BASE_URL": service.url}
    answer = run_client(command, asked(service, receiver, archive, "stable"), environment)
    training = answer["training"]
    assert (training["status"], training["error"]) == ("succeeded", None), training["logs"]
    assert set(answer["seen"]) <= {"starting", "processing", "succeeded"} and answer["seen"][0] == "starting"
    assert answer["model"] == ["default", "stable", "private"]
    assert training["id"] in answer["listed"] and ["frog.zip", archive.stat().st_size] in answer["files"]
    assert answer["canceled"] == "canceled"
    (missing, wrong, elsewhere) = answer["errors"]
    assert missing == [404, "there is no training nosuchtraining"]
    assert wrong[0] == 422 and "input.instance_prompt" in wrong[1] and "input.max_train_steps" in wrong[1]
    assert elsewhere[0] == 404
    assert_trained(training["output"]["weights"], service, training["id"])

    message = receiver.last("/stable?who=me", "succeeded")
    assert json.loads(message.body)["id"] == training["id"]
    genuine = {"headers": message.headers, "body": message.body, "secret": answer["secret"]}
    assert run_client(command, genuine, environment) is True
    assert run_client(command, {**genuine, "body": message.body.replace("succeeded", "canceled")}, environment) is False


def test_python_beta(service: RealService, receiver: Receiver, archive: Path) -> None:
    python = needed_variable("REPLICATE_BETA_PYTHON", ADVICE)
    answer = run_client([python, str(CLIENTS / "replicate_beta.py")], asked(service, receiver, archive, "beta"), {})
    assert answer["client"].startswith("2.")
    training = answer["training"]
    assert (training["status"], training["error"]) == ("succeeded", None), service.log(training["id"])
    assert answer["account"] == "default" and answer["hardware"] in (["cpu"], ["gpu"])
    assert answer["model"] == ["default", "beta", "private"]
    assert answer["file"] == ["frog.zip", "application/zip", archive.stat().st_size]
    assert all(2020 < year < 2100 for year in answer["years"])
    assert training["id"] in answer["listed"] and answer["canceled"] == "canceled"
    assert answer["errors"] == [["NotFoundError", 404], ["UnprocessableEntityError", 422], ["NotFoundError", 404]]
    assert_trained(training["weights"], service, training["id"])
    message = receiver.last("/beta?who=me", "succeeded")
    assert Webhook(answer["secret"]).verify(message.body, message.headers)["id"] == training["id"]


def test_node(service: RealService, receiver: Receiver, archive: Path) -> None:
    folder = needed_variable("REPLICATE_NODE_FOLDER", ADVICE)
    command, environment = [needed("node", ADVICE), str(CLIENTS / "replicate_node.mjs")], {"REPLICATE_NODE_FOLDER": folder}
    answer = run_client(command, asked(service, receiver, archive, "node"), environment)
    training = answer["training"]
    assert (training["status"], training["error"]) == ("succeeded", None), service.log(training["id"])
    assert answer["model"] == ["default", "node", "private"]
    assert answer["file"] == [{"from": "node"}, archive.stat().st_size]
    assert training["id"] in answer["listed"]
    assert (answer["canceled"], answer["deleted"]) == ("canceled", True)
    assert answer["errors"] == [404, 422, 404]
    assert_trained(training["output"]["weights"], service, training["id"])
    message = receiver.last("/node?who=me", "succeeded")
    genuine = {"headers": message.headers, "body": message.body, "secret": answer["secret"]}
    assert run_client(command, genuine, environment) is True
    assert run_client(command, {**genuine, "secret": "whsec_" + "A" * 32}, environment) is False


def test_what_was_canceled_is_gone(service: RealService) -> None:
    """After the three clients: what they canceled ended, and runs no more."""
    trainings = service.get("/v1/trainings")["results"]
    assert {training["status"] for training in trainings} <= {"succeeded", "canceled"}
    folders = os.fsencode(service.data / "jobs")
    alive = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if folders in _content(path)]
    assert alive == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
