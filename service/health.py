"""Figures for Prometheus: how many jobs are in which state, how long they wait and run, how late webhooks are."""

from __future__ import annotations

import time

from sqlalchemy import func, select

from service.database.engine import Database
from service.database.tables import Job, WebhookMessage
from service.jobs.states import FINAL, QUEUED, STATES


def metrics(database: Database) -> str:
    """In the text format of Prometheus. Counted in the database, so that several services tell the same."""
    now = time.time()
    with database.reading() as session:
        counts = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all())
        oldest = session.scalar(select(func.min(Job.queued_at)).where(Job.state == QUEUED))
        waited = session.scalar(select(func.sum(Job.started_at - Job.queued_at)).where(Job.started_at.is_not(None)))
        ran = session.scalar(select(func.sum(Job.completed_at - Job.started_at)).where(Job.state.in_(FINAL), Job.started_at.is_not(None)))
        due = session.scalar(select(func.min(WebhookMessage.next_attempt_at)))
        unsent = session.scalar(select(func.count()).where(WebhookMessage.next_attempt_at.is_not(None)))
    lines = ["# HELP tadpole_jobs Jobs by state.", "# TYPE tadpole_jobs gauge"]
    lines += [f'tadpole_jobs{{state="{state}"}} {counts.get(state, 0)}' for state in STATES]
    lines += _lines("tadpole_queue_wait_seconds", "gauge", "How long the job waits that waits longest.", now - oldest if oldest else 0)
    lines += _lines("tadpole_jobs_waited_seconds_total", "counter", "How long all started jobs have waited.", waited or 0)
    lines += _lines("tadpole_jobs_ran_seconds_total", "counter", "How long all ended jobs have run.", ran or 0)
    lines += _lines("tadpole_webhooks_unsent", "gauge", "Webhooks that wait to be sent.", unsent or 0)
    lines += _lines("tadpole_webhook_lag_seconds", "gauge", "How late the latest webhook is.", max(0.0, now - due) if due else 0)
    return "\n".join(lines) + "\n"


def _lines(name: str, kind: str, meaning: str, value: float) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f"{name} {value:g}"]
