"""Jobs as this service itself shows them, whatever API they came by: state, progress, log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse, StreamingResponse

from service.database.tables import Job
from service.identifiers import iso
from service.jobs.states import FINAL
from service.keys import Reader, Trainer
from service.log_feed import LogFeed, follow
from service.logs import READ_AT_ONCE, JobLog
from service.services import Services, services_of

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
Given = Annotated[Services, Depends(services_of)]


@router.get("/{job_id}")
async def show(job_id: str, caller: Reader, services: Given) -> dict[str, Any]:
    """A job with where it is: stage, step, loss, steps a second, seconds left."""
    job = services.board.get(caller.project_id, job_id)
    return {**job_view(job), "queue_position": services.board.queue_position(job)}


@router.post("/{job_id}/cancel")
def cancel(job_id: str, caller: Trainer, services: Given) -> dict[str, Any]:
    """At once if nothing runs; else `canceling` is true until all of it has ended. Once more changes nothing."""
    return job_view(services.board.cancel(caller.project_id, job_id, f"key {caller.key_id}"))


@router.get("/{job_id}/logs")
def read_log(
    job_id: str, caller: Reader, services: Given,
    offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=READ_AT_ONCE)] = READ_AT_ONCE,
) -> JSONResponse:  # fmt: skip
    """Whole lines from a byte offset on, and the offset to ask for next."""
    job = services.board.get(caller.project_id, job_id)
    part = log_of(services, job_id).read(offset, limit, to_the_end=job.state in FINAL)
    return JSONResponse({"text": part.text, "next_offset": part.next_offset, "is_over": job.state in FINAL})


@router.get("/{job_id}/logs/stream")
async def stream_log(
    job_id: str, caller: Reader, services: Given,
    offset: Annotated[int, Query(ge=0)] = 0, last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:  # fmt: skip
    """The log as server-sent events; who is cut off goes on by Last-Event-ID."""
    services.board.get(caller.project_id, job_id)
    begin = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 16 else offset
    feed = services.log_feeds.of(job_id, lambda: LogFeed(log_of(services, job_id), has_ended(services, caller.project_id, job_id)))
    events = follow(feed, begin)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def log_of(services: Services, job_id: str) -> JobLog:
    return JobLog(services.settings.jobs_dir / job_id)


def has_ended(services: Services, project_id: str, job_id: str) -> Callable[[], bool]:
    def ask() -> bool:
        job = services.board.find(project_id, job_id)
        return job is None or job.state in FINAL

    return ask


def job_view(job: Job) -> dict[str, Any]:
    return {
        "id": job.id, "api": job.api, "name": job.name, "state": job.state, "canceling": job.is_canceling, "input": job.inputs,
        "resolved": job.resolved, "progress": {"stage": job.state, **job.progress}, "warnings": job.warnings, "output": job.output,
        "error": job.error, "restarts": job.restarts, "created_at": iso(job.created_at), "queued_at": iso(job.queued_at),
        "started_at": iso(job.started_at), "completed_at": iso(job.completed_at),
    }  # fmt: skip
