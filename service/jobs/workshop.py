"""What the stages of a job work with, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.errors import UserError
from service.database.tables import Job
from service.executors.base import Limits, Status
from service.intake.target import FetchRules
from service.jobs.stages import StageFailed
from service.masking import mask
from service.packages.publishing import Publisher
from service.storage.store import Store
from service.trainers import Trainer, Trainers
from service.training.class_pictures import ClassPictureCache
from service.training.fields import BadInput
from service.training.job_folder import JobFolder
from service.training.models import read_models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, ResolvedRequest, resolve


@dataclass(frozen=True)
class Workshop:
    """What the stages work with."""

    jobs_dir: Path
    models_file: Path
    store: Store
    trainers: Trainers
    machine: Machine
    cache: ClassPictureCache
    rules: FetchRules
    own_content: Callable[[Job], Callable[[str], Any]]  # of a job: its project's own files by their URLs
    max_upload_bytes: int
    publisher: Publisher
    limits: Limits = Limits()

    def folder(self, job: Job) -> JobFolder:
        return JobFolder(self.jobs_dir / job.id)

    def resolve(self, request: TrainingRequest) -> ResolvedRequest:
        """With the files that its names stand for here and now; BadInput where there are none. Its `to_json()` is a job's `resolved`."""
        return resolve(request, self.machine, read_models(self.models_file))

    def resolved(self, job: Job) -> ResolvedRequest:
        """What the job's client asked for."""
        if job.resolved is None:
            raise StageFailed("this job was started without inputs")
        try:
            return self.resolve(TrainingRequest.from_json(job.resolved["request"]))
        except (BadInput, UserError) as error:
            raise StageFailed(str(error)) from None

    def trainer(self, job: Job) -> Trainer:
        """The one that the view noted in the job's details."""
        try:
            return self.trainers.select(job.details.get("trainer_version"))
        except BadInput as error:
            raise StageFailed(str(error)) from None


class InProcess:
    """A stage that starts no process."""

    def __init__(self, workshop: Workshop):
        self._workshop = workshop

    def progress(self, job: Job) -> dict[str, Any] | None:
        return None

    def explain(self, job: Job, status: Status) -> str:
        return status.reason

    def leave(self, job: Job) -> None:
        return None

    def take_back(self, job: Job) -> None:
        return None


def told_in(log: Path) -> str:
    """The last mistake that a log tells of; empty: it tells of none."""
    lines = log.read_text(encoding="utf-8", errors="replace")[-8192:].splitlines() if log.exists() else []
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return mask(told[-1][:1000].replace("\0", "")) if told else ""  # PostgreSQL takes no NUL
