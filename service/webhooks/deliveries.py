"""What has become of the webhooks of a job, and sending one once more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import select, update

from service.database.engine import Database
from service.database.tables import WebhookMessage


class Deliveries:
    """The outbox as people see it: by project."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time):
        self._database, self._clock = database, clock

    def listed(self, project_id: str, subject_id: str, limit: int = 50) -> Sequence[WebhookMessage]:
        """Messages about a job or a prediction, the newest first."""
        mine = (WebhookMessage.project_id == project_id, WebhookMessage.subject_id == subject_id)
        with self._database.reading() as session:
            return session.scalars(select(WebhookMessage).where(*mine).order_by(WebhookMessage.number.desc()).limit(limit)).all()

    def retry(self, project_id: str, subject_id: str, message_id: str) -> bool:
        """Send once more, now, what has arrived, was given up or waits; False if there is no such message."""
        mine = (WebhookMessage.project_id == project_id, WebhookMessage.subject_id == subject_id, WebhookMessage.id == message_id)
        values = {"next_attempt_at": self._clock(), "delivered_at": None}
        with self._database.writing() as session:
            return session.scalar(update(WebhookMessage).where(*mine).values(**values).returning(WebhookMessage.id)) is not None
