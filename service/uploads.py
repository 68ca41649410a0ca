"""Uploads of archives: which may be replaced yet, and what their end leads to."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from service.database.engine import Database
from service.database.tables import Job
from service.jobs.states import BEFORE_START
from service.storage.routes import UploadHooks
from service.storage.store import StoredObject


class Uploads:
    """The input of a job is the object jobs/<job id>/...; it may be replaced until the job starts."""

    def __init__(self, database: Database):
        self._database = database
        self._starters: dict[str, Callable[[Job], None]] = {}

    def when_whole(self, api: str, act: Callable[[Job], None]) -> None:
        """For an API whose jobs start by themselves when their upload is there."""
        self._starters[api] = act

    def hooks(self) -> UploadHooks:
        return UploadHooks(self._may_put, self._stored)

    def _job(self, key: str) -> Job | None:
        parts = key.split("/")
        if parts[0] != "jobs" or len(parts) < 3:
            return None
        with self._database.reading() as session:
            return session.scalar(select(Job).where(Job.id == parts[1]))

    def _may_put(self, key: str) -> bool:
        """Objects that belong to no job are their view's affair."""
        if not key.startswith("jobs/"):
            return True
        job = self._job(key)
        return job is not None and job.state in BEFORE_START

    def _stored(self, stored: StoredObject) -> None:
        job = self._job(stored.key)
        if job is not None and job.api in self._starters:
            self._starters[job.api](job)
