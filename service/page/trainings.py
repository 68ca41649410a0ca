"""Trainings: the list, one of them, and what can be done with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from service.jobs.routes import log_of
from service.jobs.states import BEFORE_START, CANCELED, FAILED, FINAL, QUEUED, STAGES, STATES, SUCCEEDED
from service.logs import READ_AT_ONCE
from service.page.again import resume
from service.page.live import LiveTraining, follow_training, place_after
from service.page.loss import all_points, as_columns, thinned
from service.page.rendering import render
from service.page.routing import Given, TrainerPosted, Visitor, is_asked_by_script, page_router, see
from service.page.samples import newest, read_name
from service.page.training_facts import (
    API_NAMES,
    course_of,
    facts_of,
    folder_of,
    gallery_of,
    is_draft,
    log_tail,
    settings_shown,
    state_name,
)
from service.problems import not_found

FILTERS = {
    "all": STATES, "running": STAGES, "waiting": (*BEFORE_START, QUEUED), "succeeded": (SUCCEEDED,), "failed": (FAILED,),
    "canceled": (CANCELED,),
}  # fmt: skip
ROWS = 25
LINK_SECONDS = 3600
PICTURE_HEADERS = {"Cache-Control": "private, max-age=86400", "Content-Security-Policy": "default-src 'none'; sandbox"}

router = page_router()


@router.get("/trainings")
def listed(request: Request, visit: Visitor, services: Given, show: str = "all", cursor: str | None = None) -> Response:
    """Asked by the script, only the table: it asks again and again."""
    show = show if show in FILTERS else "all"
    page = services.board.page(visit.caller.project_id, cursor=cursor, limit=ROWS, states=FILTERS[show])
    rows = [(job, state_name(job), is_draft(job), next(iter(newest(folder_of(services, job))), None)) for job in page.rows]
    template = "parts/trainings.html.jinja" if is_asked_by_script(request) else "trainings.html.jinja"
    lives = any(job.state not in FINAL for job in page.rows)
    return render(
        request, template, visit, rows=rows, page=page, show=show, filters=list(FILTERS), origins=API_NAMES, cursor=cursor or "",
        lives=lives,
    )  # fmt: skip


@router.get("/trainings/{job_id}")
def show_training(request: Request, job_id: str, visit: Visitor, services: Given) -> Response:
    job = services.board.get(visit.caller.project_id, job_id)
    if is_draft(job):
        return see(f"/trainings/new?draft={job.id}")
    return render(
        request, "training.html.jinja", visit, facts=facts_of(services, visit, job), job=job, gallery=gallery_of(services, job),
        course=course_of(folder_of(services, job)), log=log_tail(services, job), settings=settings_shown(job),
        deliveries=services.deliveries.listed(job.project_id, job.id),
    )  # fmt: skip


@router.get("/trainings/{job_id}/live")
def live(
    job_id: str, visit: Visitor, services: Given, log: Annotated[int, Query(ge=0)] = 0, step: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:  # fmt: skip
    services.board.get(visit.caller.project_id, job_id)
    following = LiveTraining(services, visit.token, job_id, *place_after(last_event_id, log, step))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(follow_training(following), media_type="text/event-stream", headers=headers)


@router.get("/trainings/{job_id}/loss.json")
def loss(job_id: str, visit: Visitor, services: Given) -> JSONResponse:
    job = services.board.get(visit.caller.project_id, job_id)
    return JSONResponse(as_columns(thinned(all_points(folder_of(services, job)))), headers={"Cache-Control": "private, no-cache"})


@router.get("/trainings/{job_id}/log.txt")
def log_text(job_id: str, visit: Visitor, services: Given) -> Response:
    """All of it, secrets masked, as a download."""
    job = services.board.get(visit.caller.project_id, job_id)
    log, offset, parts = log_of(services, job.id), 0, []
    while True:
        part = log.read(offset, READ_AT_ONCE, to_the_end=job.state in FINAL)
        if part.next_offset == offset:
            break
        offset = part.next_offset
        parts.append(part.text)
    name = f"training-{job.id}.log"
    return PlainTextResponse("".join(parts), headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.get("/trainings/{job_id}/samples/{name}")
def sample(job_id: str, name: str, visit: Visitor, services: Given) -> FileResponse:
    job = services.board.get(visit.caller.project_id, job_id)
    path = folder_of(services, job).samples / name
    if read_name(name) is None or path.is_symlink() or not path.is_file():
        raise not_found("picture of this name")
    return FileResponse(path, media_type="image/png", headers=PICTURE_HEADERS)


@router.get("/trainings/{job_id}/files/{name:path}")
def file(job_id: str, name: str, visit: Visitor, services: Given) -> RedirectResponse:
    """To a signed address of the store, from which it is downloaded."""
    job = services.board.get(visit.caller.project_id, job_id)
    keys = {found["name"]: found["key"] for found in (job.output or {}).get("files", [])}
    if name not in keys:
        raise not_found("file of this name")
    return see(services.store.get_url(keys[name], seconds=LINK_SECONDS, file_name=name.rpartition("/")[2]))


@router.post("/trainings/{job_id}/cancel")
def cancel(request: Request, job_id: str, sent: TrainerPosted, services: Given) -> Response:
    """The script that asked sees the end of it as it sees everything else: an answer that shows it might come after that."""
    visit = sent.visit
    job = services.board.cancel(visit.caller.project_id, job_id, f"key {visit.caller.key_id}")
    if is_asked_by_script(request):
        return Response(status_code=204)
    return see("/trainings" if job.state == CANCELED and job.started_at is None else f"/trainings/{job.id}")


@router.post("/trainings/{job_id}/resume")
def go_on(job_id: str, sent: TrainerPosted, services: Given) -> Response:
    job = services.board.get(sent.visit.caller.project_id, job_id)
    return see(f"/trainings/{resume(services, sent.visit.caller, job).id}")


@router.post("/trainings/{job_id}/deliveries/{message_id}/retry")
def send_again(request: Request, job_id: str, message_id: str, sent: TrainerPosted, services: Given) -> Response:
    """A webhook that did not arrive, or was lost there. The script sees what becomes of it as long as the training goes on."""
    job = services.board.get(sent.visit.caller.project_id, job_id)
    if not services.deliveries.retry(job.project_id, job.id, message_id):
        raise not_found("webhook of this training")
    if is_asked_by_script(request):
        if services.board.get(job.project_id, job.id).state not in FINAL:
            return Response(status_code=204)
        deliveries = services.deliveries.listed(job.project_id, job.id)
        return render(request, "parts/deliveries.html.jinja", sent.visit, job=job, deliveries=deliveries)
    return see(f"/trainings/{job.id}#deliveries")
