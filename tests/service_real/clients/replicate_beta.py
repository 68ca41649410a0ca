"""What somebody does with PyPI's replicate 2.0 (beta), in its own Python: files, a model, trainings, lists, errors."""
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import replicate
from replicate import APIStatusError, Replicate


def run(asked: dict[str, Any]) -> dict[str, Any]:
    client = Replicate(bearer_token=asked["key"], base_url=asked["base_url"])
    owner, _, name = asked["destination"].partition("/")
    model = client.models.create(owner=owner, name=name, visibility="private", hardware="cpu")
    archive = Path(asked["archive"])
    file = client.files.create(content=(archive.name, archive.read_bytes(), "application/zip"))
    training = create(client, asked, file.urls.get, webhook=asked["webhook"], webhook_events_filter=["completed"])
    seen = [training.status]
    while seen[-1] not in ("succeeded", "failed", "canceled"):
        time.sleep(0.5)
        seen.append(client.trainings.get(training_id=training.id).status)
    done = client.trainings.get(training_id=training.id)
    answer = {
        "client": replicate.__version__,
        "account": client.account.get().username,
        "hardware": [found.sku for found in client.hardware.list()],
        "model": [model.owner, model.name, model.visibility],
        "file": [file.name, file.content_type, client.files.get(file_id=file.id).size],
        "training": {"id": done.id, "status": done.status, "weights": done.output.weights if done.output else None, "error": done.error},
        "years": [done.created_at.year, done.completed_at.year],
        "seen": seen,
        "listed": [found.id for found in client.trainings.list()],
        "canceled": cancel(client, asked, file.urls.get),
        "errors": errors(client, asked),
        "secret": client.webhooks.default.secret.get().key,
    }
    client.files.delete(file_id=file.id)
    answer["files"] = [found.id for found in client.files.list()]
    return answer


def create(client: Replicate, asked: dict[str, Any], archive_url: str, destination: str | None = None, **more: Any) -> Any:
    model, _, version = asked["version"].partition(":")
    owner, _, name = model.partition("/")
    inputs = {**asked["input"], "instance_data": archive_url, **more.pop("input", {})}
    return client.trainings.create(
        model_owner=owner, model_name=name, version_id=version, destination=destination or asked["destination"], input=inputs, **more
    )


def cancel(client: Replicate, asked: dict[str, Any], archive_url: str) -> str:
    """A training that would take days, canceled while it runs."""
    training = create(client, asked, archive_url, input={"max_train_steps": 100_000})
    while client.trainings.get(training_id=training.id).status == "starting":
        time.sleep(0.5)
    client.trainings.cancel(training_id=training.id)
    while client.trainings.get(training_id=training.id).status == "processing":
        time.sleep(0.5)
    return str(client.trainings.get(training_id=training.id).status)


def errors(client: Replicate, asked: dict[str, Any]) -> list[list[Any]]:
    """Kind and status of what is refused."""
    found = []
    for attempt in (
        lambda: client.trainings.get(training_id="nosuchtraining"),
        lambda: create(client, asked, "https://example.org/a.zip", input={"max_train_steps": 0}),
        lambda: create(client, asked, "https://example.org/a.zip", destination=f"{asked['destination']}-none"),
    ):
        try:
            attempt()
            found.append([None, None])
        except APIStatusError as error:
            found.append([type(error).__name__, error.status_code])
    return found


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
