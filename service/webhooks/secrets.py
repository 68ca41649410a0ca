"""The secrets that webhooks are signed with: one of a project counts, an older one for a day after it was replaced."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.tables import Project, WebhookSecret
from service.identifiers import new_id

OVERLAP_SECONDS = 24 * 3600.0
SECRET_BYTES = 24


class WebhookSecrets:
    def __init__(self, database: Database, clock: Callable[[], float] = time.time):
        self._database, self._clock = database, clock

    def active(self, project_id: str) -> list[str]:
        """What messages are signed with, the newest first; made now if there is none."""
        with self._database.reading() as session:
            found = self._active(session, project_id)
        if found:
            return found
        with self._database.writing() as session:
            self._lock(session, project_id)
            return self._active(session, project_id) or [self._add(session, project_id)]

    def rotate(self, project_id: str) -> str:
        """A new secret. Messages are signed with the old one, too, for a day: receivers change theirs in that time."""
        now = self._clock()
        with self._database.writing() as session:
            self._lock(session, project_id)
            session.execute(delete(WebhookSecret).where(WebhookSecret.project_id == project_id, WebhookSecret.retires_at.is_not(None)))
            old = update(WebhookSecret).where(WebhookSecret.project_id == project_id)
            session.execute(old.values(retires_at=now + OVERLAP_SECONDS))
            return self._add(session, project_id)

    def _active(self, session: Session, project_id: str) -> list[str]:
        is_active = WebhookSecret.retires_at.is_(None) | (WebhookSecret.retires_at > self._clock())
        mine = select(WebhookSecret).where(WebhookSecret.project_id == project_id, is_active)
        return [row.secret for row in sorted(session.scalars(mine), key=lambda row: row.retires_at is not None)]

    def _add(self, session: Session, project_id: str) -> str:
        # Standard base64: a client splits the text at "_" and wants two parts.
        text = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        session.add(WebhookSecret(id=new_id(), project_id=project_id, secret=text, created_at=self._clock()))
        return text

    def _lock(self, session: Session, project_id: str) -> None:
        """Two who find no secret make one."""
        session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
