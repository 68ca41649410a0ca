"""Replicate's experimental DreamBooth API: on the same paths as the official one, and apart from it under /dreambooth/v1."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from service.database.tables import Job, StoredFile
from service.identifiers import new_id
from service.keys import Caller, Reader, Trainer
from service.packages.templates import USUAL
from service.problems import FieldMistake, Problem, invalid
from service.services import Services, services_of
from service.training.fields import BadInput
from service.views.replicate import find_training
from service.views.replicate_jobs import EXPERIMENTAL, experimental_view, new_training, webhook_of
from service.views.replicate_models import NAME, ModelExists, NewModel, add_model, find_model
from service.views.replicate_pages import page_view
from service.views.taking import of_bad_input, upload_limit

router = APIRouter(tags=["Replicate's DreamBooth API"])
Given = Annotated[Services, Depends(services_of)]
APART = "dreambooth/v1"
APIS = (EXPERIMENTAL,)


class NewDreambooth(BaseModel):
    input: dict[str, Any]
    model: str
    trainer_version: str | None = None
    template_version: str | None = None
    notes: str | None = None
    webhook: str | None = None
    webhook_completed: str | None = None


@router.post("/v1/trainings", status_code=201)
def create(body: NewDreambooth, caller: Trainer, services: Given) -> dict[str, Any]:
    return _create(services, caller, body, "v1")


@router.post(f"/{APART}/trainings", status_code=201)
def create_apart(body: NewDreambooth, caller: Trainer, services: Given) -> dict[str, Any]:
    return _create(services, caller, body, APART)


def _create(services: Services, caller: Caller, body: NewDreambooth, root: str) -> dict[str, Any]:
    try:
        trainer = services.workshop.trainers.select(body.trainer_version)
    except BadInput as error:
        raise of_bad_input(error) from None
    details = {
        "model": body.model, "trainer_version": body.trainer_version, "template_version": body.template_version, "notes": body.notes,
    }  # fmt: skip
    webhook = webhook_of(services, None, body.webhook_completed or body.webhook, None)
    new = new_training(services, trainer, EXPERIMENTAL, body.input, webhook, details)
    try:
        services.workshop.publisher.templates.select(body.template_version, "dreambooth")
    except BadInput as error:  # clients name versions of templates that only the first of these services had
        warning = f"{error}; the package is built by {USUAL['dreambooth']}"
        new = replace(new, warnings=[*new.warnings, warning])
    _have_model(services, caller, body.model)
    return experimental_view(services, services.board.create(caller, new), root)


def _have_model(services: Services, caller: Caller, model: str) -> None:
    """This API makes the model that a training is for."""
    owner, _, name = model.partition("/")
    try:
        find_model(services, caller, owner, name)
    except Problem:
        if not re.fullmatch(NAME, name):
            raise invalid([FieldMistake("model", "write owner/name, the name of letters, digits, '.', '_' and '-'")]) from None
        with suppress(ModelExists):  # another request was faster
            add_model(services, caller, NewModel(owner=owner, name=name), "model")


@router.get(f"/{APART}/trainings")
def listed(caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    page = services.board.page(caller.project_id, cursor=cursor, apis=APIS)
    return page_view(services, f"{APART}/trainings", page, [{**_apart(services, job), "logs": None} for job in page.rows])


@router.get(f"/{APART}/trainings/{{training_id}}")
async def show(training_id: str, caller: Reader, services: Given) -> dict[str, Any]:
    return _apart(services, find_training(services, caller, training_id, APIS))


@router.post(f"/{APART}/trainings/{{training_id}}/cancel")
def cancel(training_id: str, caller: Trainer, services: Given) -> dict[str, Any]:
    job = find_training(services, caller, training_id, APIS)
    return _apart(services, services.board.cancel(caller.project_id, job.id, f"key {caller.key_id}"))


@router.post("/v1/upload/{name}")
@router.post(f"/{APART}/upload/{{name}}")
def upload(name: str, caller: Trainer, services: Given) -> dict[str, str]:
    """Where to PUT an archive, and its address for `instance_data`. It is deleted as files of the files API are."""
    if not name.endswith(".zip"):
        raise invalid([FieldMistake("name", "only archives are uploaded here; write a name that ends in .zip")])
    file_id, now = new_id(), services.board.clock()
    row = StoredFile(
        id=file_id, project_id=caller.project_id, name=name[:255], content_type="application/zip", size=0, etag="", md5="", sha256="",
        details={}, key=f"files/{file_id}", created_at=now, expires_at=now + services.settings.keep_files_hours * 3600,
    )  # fmt: skip
    with services.database.writing() as session:
        session.add(row)
    upload_url = services.store.put_url(row.key, max_bytes=upload_limit(services))
    return {"upload_url": upload_url, "serving_url": f"{services.settings.url}/v1/files/{file_id}/download"}


def _apart(services: Services, job: Job) -> dict[str, Any]:
    return experimental_view(services, job, APART)
