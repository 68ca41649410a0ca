"""What runs and what waits, for admins. Of other projects nothing is told but that they run or wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import func, select

from service.database.tables import Job, WebhookMessage
from service.executors.devices import devices_of
from service.jobs.states import QUEUED, STAGES
from service.page.rendering import render
from service.page.routing import Given, Visitor, is_asked_by_script, page_router
from service.page.training_facts import state_name

ROWS = 100

router = page_router()


@router.get("/queue")
def show_queue(request: Request, visit: Visitor, services: Given) -> Response:
    """Asked by the script, only what changes."""
    visit.caller.require("admin")
    settings, now = services.settings, time.time()
    with services.database.reading() as session:
        running = session.scalars(select(Job).where(Job.state.in_(STAGES)).order_by(Job.started_at).limit(ROWS)).all()
        order = (Job.priority.desc(), Job.queued_at)
        waiting = session.scalars(select(Job).where(Job.state == QUEUED).order_by(*order).limit(ROWS)).all()
        count = session.scalar(select(func.count()).where(Job.state == QUEUED)) or 0
        oldest = session.scalar(select(func.min(Job.queued_at)).where(Job.state == QUEUED))
        unsent = session.scalar(select(func.count()).where(WebhookMessage.next_attempt_at.is_not(None))) or 0
    places = _places(tuple(settings.devices), settings.running_jobs) if settings.executor == "local" else None
    template = "parts/queue.html.jinja" if is_asked_by_script(request) else "queue.html.jinja"
    return render(
        request, template, visit, running=[_row(job, visit.caller.project_id) for job in running], count=count, places=places,
        waiting=[_row(job, visit.caller.project_id) for job in waiting], waits=now - oldest if oldest else None, unsent=unsent,
    )  # fmt: skip


def _row(job: Job, project_id: str) -> tuple[Job, str, bool]:
    return job, state_name(job), job.project_id == project_id


@cache
def _places(devices: Sequence[str], jobs: int) -> int:
    """How many trainings this machine runs at a time; asked once, as programs of the driver tell it."""
    return len(devices_of(devices, jobs).slots)
