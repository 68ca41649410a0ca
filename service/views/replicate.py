"""Replicate's official API: trainings, the account, hardware, the secret of webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel

from service.database.tables import Job
from service.keys import Admin, Caller, Reader, Trainer
from service.problems import not_found
from service.services import Services, services_of
from service.training.fields import BadInput
from service.views.replicate_jobs import (
    EXPERIMENTAL,
    OFFICIAL,
    new_training,
    official_view,
    training_view,
    webhook_of,
)
from service.views.replicate_models import find_model
from service.views.replicate_pages import page_view
from service.views.taking import digest_of, twin

router = APIRouter(prefix="/v1", tags=["Replicate"])
Given = Annotated[Services, Depends(services_of)]
APIS = (OFFICIAL, EXPERIMENTAL)
TWIN_SECONDS = 120.0


class NewTraining(BaseModel):
    input: dict[str, Any]
    destination: str
    webhook: str | None = None
    webhook_completed: str | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] | None = None


@router.post("/models/{owner}/{name}/versions/{version}/trainings", status_code=201)
def create(
    owner: str, name: str, version: str, body: NewTraining, caller: Trainer, services: Given,
    x_stainless_retry_count: Annotated[str, Header()] = "0",
) -> dict[str, Any]:  # fmt: skip
    """A training by this version of a trainer. The client that counts its retries gets the training that its first try made."""
    asked = f"{owner}/{name}:{version}"
    try:
        trainer = services.workshop.trainers.select(asked)
    except BadInput:
        raise not_found(f"trainer {asked[:200]}") from None
    destination_owner, _, destination_name = body.destination.partition("/")
    find_model(services, caller, destination_owner, destination_name)
    digest = digest_of(asked, body.model_dump())
    if x_stainless_retry_count != "0" and (earlier := twin(services, caller, (OFFICIAL,), digest, TWIN_SECONDS)):
        return official_view(services, earlier)
    details = {
        "model": f"{owner}/{name}", "version": version, "destination": body.destination, "trainer_version": asked, "request_digest": digest,
    }  # fmt: skip
    webhook = webhook_of(services, body.webhook, body.webhook_completed, body.webhook_events_filter)
    return official_view(services, services.board.create(caller, new_training(services, trainer, OFFICIAL, body.input, webhook, details)))


@router.get("/trainings")
def listed(caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    """The newest first, those of the experimental API among them."""
    page = services.board.page(caller.project_id, cursor=cursor, apis=APIS)
    return page_view(services, "v1/trainings", page, [{**training_view(services, job), "logs": None} for job in page.rows])


@router.get("/trainings/{training_id}")
async def show(training_id: str, caller: Reader, services: Given) -> dict[str, Any]:
    return training_view(services, find_training(services, caller, training_id, APIS))


@router.post("/trainings/{training_id}/cancel")
def cancel(training_id: str, caller: Trainer, services: Given) -> dict[str, Any]:
    """Once more changes nothing, nor does it for a training that is over."""
    job = find_training(services, caller, training_id, APIS)
    return training_view(services, services.board.cancel(caller.project_id, job.id, f"key {caller.key_id}"))


@router.get("/account")
def account(caller: Reader, services: Given) -> dict[str, Any]:
    """The project of the key: its name is the owner of its models."""
    name = services.keys.project_name(caller.project_id)
    return {"type": "organization", "username": name, "name": name, "github_url": None}


@router.get("/hardware")
def hardware(_caller: Reader, services: Given) -> list[dict[str, str]]:
    return [{"name": "GPU", "sku": "gpu"}] if services.workshop.machine.has_cuda else [{"name": "CPU", "sku": "cpu"}]


@router.get("/webhooks/default/secret")
def webhook_secret(caller: Admin, services: Given) -> dict[str, str]:
    """What the webhooks of this project are signed with."""
    return {"key": services.secrets.active(caller.project_id)[0]}


def find_training(services: Services, caller: Caller, training_id: str, apis: tuple[str, ...]) -> Job:
    job = services.board.find(caller.project_id, training_id)
    if job is None or job.api not in apis:
        raise not_found(f"training {training_id[:64]}")
    return job
