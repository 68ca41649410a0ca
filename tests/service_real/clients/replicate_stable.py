"""What somebody does with PyPI's replicate 1.x, in its own Python: files, a model, trainings, lists, errors, webhooks."""
from __future__ import annotations

import json
import sys
import time
from typing import Any

import replicate
from replicate.exceptions import ReplicateError
from replicate.pagination import paginate
from replicate.webhook import Webhooks, WebhookSigningSecret


def run(asked: dict[str, Any]) -> dict[str, Any]:
    client = replicate.Client()  # REPLICATE_API_TOKEN, REPLICATE_BASE_URL
    owner, _, name = asked["destination"].partition("/")
    model = client.models.create(owner=owner, name=name, visibility="private", hardware="cpu")
    with open(asked["archive"], "rb") as archive:  # noqa: PTH123  as its readme does
        training = client.trainings.create(
            version=asked["version"],
            input={**asked["input"], "instance_data": archive},  # the client uploads an open file by itself
            destination=asked["destination"],
            webhook=asked["webhook"],
            webhook_events_filter=["start", "completed"],
        )
    seen = [training.status]
    while training.status not in ("succeeded", "failed", "canceled"):
        time.sleep(0.5)
        training.reload()
        seen.append(training.status)
    return {
        "model": [model.owner, model.name, model.visibility],
        "training": {"id": training.id, "status": training.status, "output": training.output, "error": training.error, "logs": training.logs},
        "seen": seen,
        "listed": [found.id for page in paginate(client.trainings.list) for found in page.results],
        "files": [[found.name, found.size] for found in client.files.list()],
        "canceled": cancel(client, asked, training.input["instance_data"]),
        "errors": errors(client, asked),
        "secret": client.webhooks.default.secret().key,
    }


def cancel(client: replicate.Client, asked: dict[str, Any], archive_url: str) -> str:
    """A training that would take days, canceled while it runs."""
    training = client.trainings.create(
        version=asked["version"],
        input={**asked["input"], "instance_data": archive_url, "max_train_steps": 100_000},
        destination=asked["destination"],
    )
    while training.status == "starting":
        time.sleep(0.5)
        training.reload()
    training.cancel()
    training.cancel()  # once more changes nothing
    while training.status == "processing":
        time.sleep(0.5)
        training.reload()
    return str(training.status)


def errors(client: replicate.Client, asked: dict[str, Any]) -> list[list[Any]]:
    """Status and detail of what is refused."""
    found = []
    for attempt in (
        lambda: client.trainings.get("nosuchtraining"),
        lambda: client.trainings.create(version=asked["version"], input={"max_train_steps": 0}, destination=asked["destination"]),
        lambda: client.trainings.create(version=asked["version"], input=asked["input"], destination=f"{asked['destination']}-none"),
    ):
        try:
            attempt()
            found.append([None, None])
        except ReplicateError as error:
            found.append([error.status, error.detail])
    return found


def verify(asked: dict[str, Any]) -> bool:
    """Whether the client takes a webhook for genuine: it raises where it does not."""
    try:
        Webhooks.validate(headers=asked["headers"], body=asked["body"], secret=WebhookSigningSecret(key=asked["secret"]), tolerance=300)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(verify(given) if "headers" in given else run(given)))
