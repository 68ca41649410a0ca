"""The outbox: messages are added in the transaction of the change, so that none is lost and none tells what did not happen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.database.tables import Job, WebhookMessage
from service.identifiers import iso, new_id

START, OUTPUT, LOGS, COMPLETED = "start", "output", "logs", "completed"
EVENTS = (START, OUTPUT, LOGS, COMPLETED)
DEFAULT_EVENTS = (OUTPUT, COMPLETED)
LARGEST_BODY = 2**20  # bytes

JobView = Callable[[Job], Mapping[str, Any]]


class Outbox:
    """`views`: how the jobs of an API look in its webhooks: as that API's GET shows them."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._views: dict[str, JobView] = {}

    def show_jobs_of(self, api: str, view: JobView) -> None:
        self._views[api] = view

    def add_job(self, session: Session, job: Job, event: str) -> None:
        """Tell of a job, if it has a webhook that wants this event."""
        if job.webhook and event in job.webhook_events:
            body = self._views.get(job.api, plain_view)(job)
            self.add(session, project_id=job.project_id, subject_id=job.id, url=job.webhook, event=event, body=body)

    def add(self, session: Session, *, project_id: str, subject_id: str, url: str, event: str, body: Mapping[str, Any]) -> None:
        """Put a message for `url` into the transaction of `session`."""
        text = json.dumps(body)
        if len(text.encode()) > LARGEST_BODY:  # only logs and inputs can be that long
            text = json.dumps({**body, "logs": None, "input": None})
        now = self._clock()
        session.add(
            WebhookMessage(
                id=f"msg_{new_id()}", project_id=project_id, subject_id=subject_id, event=event, url=url, body=text,
                is_final=event == COMPLETED, created_at=now, attempts=0, next_attempt_at=now,
            )
        )  # fmt: skip


def plain_view(job: Job) -> dict[str, Any]:
    """A job whose API has no view of its own."""
    return {
        "id": job.id, "name": job.name, "status": job.state, "input": job.inputs, "output": job.output, "error": job.error,
        "created_at": iso(job.created_at), "started_at": iso(job.started_at), "completed_at": iso(job.completed_at),
    }  # fmt: skip
