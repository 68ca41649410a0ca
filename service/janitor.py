"""Deletes what is older than the settings keep: uploads, logs and samples, files, and what was only needed for a while. Models stay."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import delete, or_, select, update

from service.database.engine import Database
from service.database.tables import IdempotencyRecord, Job, PageSession, Prediction, StoredFile, WebhookMessage
from service.idempotency import KEPT_SECONDS
from service.jobs.states import BEFORE_START, FAILED, FINAL
from service.settings import ServiceSettings
from service.storage.local import LocalStore
from service.storage.store import Store
from service.training.class_pictures import ClassPictureCache
from service.training.job_folder import JobFolder

DAY_SECONDS = 86400.0
ROUND_SECONDS = 3600.0
MOST_CLASS_PICTURE_BYTES = 20 << 30
log = logging.getLogger("service.janitor")


@dataclass(frozen=True)
class Removal:
    """Something that is too old, in words, and what deletes it."""

    what: str
    act: Callable[[], None]


class Janitor:
    """`sweep` goes round once; `start` has that done every hour."""

    def __init__(self, database: Database, store: Store, settings: ServiceSettings, clock: Callable[[], float] = time.time):
        self._database, self._store, self._settings, self._clock = database, store, settings, clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(ROUND_SECONDS):
            try:
                for what in self.sweep():
                    log.info("deleted: %s", what)
            except Exception:  # the database or the store is away: nothing gets older by an hour more
                log.exception("what is too old could not be deleted")

    def sweep(self, dry_run: bool = False) -> list[str]:
        """Delete what is too old; what that was. `dry_run`: only say so."""
        told = []
        for removal in self._removals():
            try:
                if not dry_run:
                    removal.act()
                told.append(removal.what)
            except Exception:  # gone already, or the database finds no room: what else can be deleted may make some
                log.exception("could not be deleted: %s", removal.what)
        if not dry_run:
            self._forget()
        return told

    def _removals(self) -> Iterator[Removal]:
        yield from self._uploads()
        yield from self._folders()
        yield from self._files()
        yield from self._predictions()

    def _uploads(self) -> Iterator[Removal]:
        """Of jobs that are over, and of those that were never started: these fail first, so that none starts without its pictures."""
        before = self._clock() - self._settings.keep_inputs_days * DAY_SECONDS
        too_old = or_(Job.completed_at < before, Job.state.in_(BEFORE_START) & (Job.created_at < before))
        with self._database.reading() as session:
            jobs = session.scalars(select(Job).where(Job.input_key.is_not(None), too_old)).all()
        for job in jobs:
            yield Removal(f"the upload of job {job.id}", partial(self._delete_upload, job))

    def _delete_upload(self, job: Job) -> None:
        given_up = {"state": FAILED, "completed_at": self._clock(), "error": "it was never started, and its upload is deleted"}
        with self._database.writing() as session:
            session.execute(update(Job).where(Job.id == job.id, Job.state.in_(BEFORE_START)).values(**given_up))
            is_over = session.scalar(select(Job.id).where(Job.id == job.id, Job.state.in_(FINAL))) is not None
        if not is_over:  # its client has started it, since it was found
            return
        self._store.delete(str(job.input_key))
        for pictures in (self._folder(job.id).instance_pictures.parent, self._folder(job.id).preview):
            shutil.rmtree(pictures, ignore_errors=True)
        with self._database.writing() as session:
            session.execute(update(Job).where(Job.id == job.id, Job.state.in_(FINAL)).values(input_key=None))

    def _folders(self) -> Iterator[Removal]:
        """Logs and samples; results are in the store, and stay. Folders of jobs that no row knows are left alone."""
        before = self._clock() - self._settings.keep_logs_days * DAY_SECONDS
        names = [path.name for path in self._settings.jobs_dir.iterdir()] if self._settings.jobs_dir.is_dir() else []
        with self._database.reading() as session:
            old = set(session.scalars(select(Job.id).where(Job.completed_at < before)))
        for name in names:
            if name in old:
                yield Removal(f"logs and samples of job {name}", partial(shutil.rmtree, self._folder(name).root))

    def _files(self) -> Iterator[Removal]:
        with self._database.reading() as session:
            files = session.scalars(select(StoredFile).where(StoredFile.expires_at < self._clock())).all()
        for file in files:
            yield Removal(f"file {file.id}", partial(self._delete_file, file))

    def _delete_file(self, file: StoredFile) -> None:
        self._store.delete(file.key)  # first: a row without a file is found again, a file without a row is not
        with self._database.writing() as session:
            session.execute(delete(StoredFile).where(StoredFile.id == file.id))

    def _predictions(self) -> Iterator[Removal]:
        """As long as files: whoever wants a picture for longer has fetched it."""
        before = self._clock() - self._settings.keep_files_hours * 3600
        with self._database.reading() as session:
            old = session.scalars(select(Prediction).where(Prediction.completed_at < before)).all()
        for prediction in old:
            yield Removal(f"prediction {prediction.id}", partial(self._delete_prediction, prediction))

    def _delete_prediction(self, prediction: Prediction) -> None:
        for key in prediction.output or ():
            self._store.delete(key)
        with self._database.writing() as session:
            session.execute(delete(Prediction).where(Prediction.id == prediction.id))

    def _forget(self) -> None:
        """What nobody asks for any more."""
        now = self._clock()
        old = now - self._settings.keep_logs_days * DAY_SECONDS
        with self._database.writing() as session:
            session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < now - KEPT_SECONDS))
            session.execute(delete(PageSession).where(PageSession.expires_at < now))
            session.execute(delete(WebhookMessage).where(WebhookMessage.next_attempt_at.is_(None), WebhookMessage.created_at < old))
        ClassPictureCache(self._settings.data_dir / "class_pictures").shrink(MOST_CLASS_PICTURE_BYTES)
        if isinstance(self._store, LocalStore):
            self._store.sweep(DAY_SECONDS)

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self._settings.jobs_dir / job_id)
