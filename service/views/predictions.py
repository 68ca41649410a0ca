"""Replicate's predictions: pictures asked of a version. Each training is one, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.database.tables import Job, Prediction
from service.jobs.pages import Conditions, page_of_several
from service.keys import Caller, Reader, Trainer
from service.packages.predictions import FINAL, STARTING
from service.packages.registry import Registered
from service.problems import FieldMistake, invalid, not_found
from service.services import Services, services_of
from service.views.prediction_jobs import make_prediction, prediction_view, seconds_to_wait, when_done
from service.views.replicate import APIS
from service.views.replicate_jobs import training_view
from service.views.replicate_pages import PAGE_ROWS, page_view

router = APIRouter(prefix="/v1", tags=["Replicate"])
Given = Annotated[Services, Depends(services_of)]


class NewOfModel(BaseModel):
    input: dict[str, Any]
    webhook: str | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] | None = None


class NewOfVersion(NewOfModel):
    version: str


@router.post("/predictions", status_code=201)
async def create(body: NewOfVersion, caller: Trainer, services: Given, prefer: Annotated[str, Header()] = "") -> dict[str, Any]:
    """`version`: an id, owner/name:id, or owner/name for its newest. `Prefer: wait` answers when it is done, within 60 seconds."""
    registered = await run_in_threadpool(find_version, services, caller, body.version)
    if registered is None:
        raise invalid([FieldMistake("version", f"there is no version {body.version[:200]}; write its id, or owner/name:id")])
    return await _make(services, caller, registered, body, prefer)


@router.post("/models/{owner}/{name}/predictions", status_code=201)
async def create_of_model(
    owner: str, name: str, body: NewOfModel, caller: Trainer, services: Given, prefer: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """By the newest version of a model."""
    registered = await run_in_threadpool(services.registry.find, caller.project_id, owner, name)
    if registered is None:
        raise not_found(f"model {owner[:128]}/{name[:128]} that has a version")
    return await _make(services, caller, registered, body, prefer)


@router.get("/predictions")
def listed(caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    """The newest first, the trainings of both APIs among them."""
    mine: dict[type[Any], Conditions] = {
        Prediction: [Prediction.project_id == caller.project_id],
        Job: [Job.project_id == caller.project_id, Job.api.in_(APIS)],
    }
    with services.database.reading() as session:
        page = page_of_several(session, mine, cursor, PAGE_ROWS)
    return page_view(services, "v1/predictions", page, [{**_view(services, found), "logs": None} for found in page.rows])


@router.get("/predictions/{prediction_id}")
async def show(prediction_id: str, caller: Reader, services: Given) -> dict[str, Any]:
    prediction = services.predictions.find(caller.project_id, prediction_id)
    return _view(services, _training(services, caller, prediction_id) if prediction is None else prediction)


@router.post("/predictions/{prediction_id}/cancel")
def cancel(prediction_id: str, caller: Trainer, services: Given) -> dict[str, Any]:
    """Once more changes nothing, nor does it for one that is over."""
    if services.predictions.find(caller.project_id, prediction_id) is not None:
        return prediction_view(services, services.predictions.cancel(caller.project_id, prediction_id))
    training = _training(services, caller, prediction_id)
    return training_view(services, services.board.cancel(caller.project_id, training.id, f"key {caller.key_id}"))


def _view(services: Services, found: Prediction | Job) -> dict[str, Any]:
    return training_view(services, found) if isinstance(found, Job) else prediction_view(services, found)


def find_version(services: Services, caller: Caller, asked: str) -> Registered | None:
    """What a client calls a version: its id alone, or with the model's name, or the model's name alone."""
    model, colon, version = asked.partition(":")
    if "/" not in model:
        return services.registry.by_id(caller.project_id, asked)
    owner, _, name = model.partition("/")
    return services.registry.find(caller.project_id, owner, name, version if colon else None)


async def _make(services: Services, caller: Caller, registered: Registered, body: NewOfModel, prefer: str) -> dict[str, Any]:
    prediction = await run_in_threadpool(
        make_prediction, services, caller, registered, body.input, body.webhook, body.webhook_events_filter
    )
    seconds = seconds_to_wait(prefer)
    prediction = await when_done(services, prediction, seconds)
    view = await run_in_threadpool(prediction_view, services, prediction)
    if seconds and prediction.state not in FINAL:
        view["status"] = STARTING  # clients that wait take every other status for the end, and then find no output
    return view


def _training(services: Services, caller: Caller, training_id: str) -> Job:
    job = services.board.find(caller.project_id, training_id)
    if job is None or job.api not in APIS:
        raise not_found(f"prediction {training_id[:64]}")
    return job
