"""What the page of a training says: stages, figures, files, and what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.database.tables import Job
from service.jobs.routes import log_of
from service.jobs.states import (
    BEFORE_START,
    BUILDING,
    CANCELED,
    FAILED,
    FINAL,
    PREPARING,
    PUBLISHING,
    QUEUED,
    STAGES,
    SUCCEEDED,
    TRAINING,
)
from service.logs import TAIL_BYTES
from service.page.loss import TABLE_ROWS, Point, all_points, thinned
from service.page.samples import Gallery, gallery
from service.page.sessions import Visit
from service.services import Services
from service.training.job_folder import JobFolder

STAGE_NAMES = {PREPARING: "Prepare", TRAINING: "Train", BUILDING: "Build", PUBLISHING: "Publish"}
STATE_NAMES = {
    "created": "Draft", "uploading": "Waiting for pictures", QUEUED: "Queued", PREPARING: "Preparing", TRAINING: "Training",
    BUILDING: "Building", PUBLISHING: "Publishing", SUCCEEDED: "Succeeded", FAILED: "Failed", CANCELED: "Canceled",
}  # fmt: skip
API_NAMES = {
    "console": "This page", "tiyaro": "Tiyaro", "replicate": "Replicate", "dreambooth": "Replicate DreamBooth", "cerebrium": "Cerebrium",
}  # fmt: skip
CONSOLE = "console"


@dataclass(frozen=True)
class Stage:
    name: str
    place: str  # done, now, later, or where it ended: failed, canceled


@dataclass(frozen=True)
class Facts:
    """A training at this moment."""

    job: Job
    label: str
    stages: tuple[Stage, ...]
    queue_position: int | None
    step: int
    total_steps: int
    seconds: float | None  # since it began, or that it took
    may_cancel: bool
    may_resume: bool
    may_clone: bool

    @property
    def is_over(self) -> bool:
        return self.job.state in FINAL

    @property
    def title(self) -> str:
        return self.job.name or f"Training {self.job.id[:8]}"

    @property
    def spoken(self) -> str:
        """For screen readers, which are told of each change: so it changes in tenths."""
        tenth = 10 * (10 * self.step // self.total_steps) if self.total_steps else 0
        return f"{self.label}, {tenth} percent of the steps" if self.job.state == TRAINING and not self.job.is_canceling else self.label

    @property
    def origin(self) -> str:
        return "on this page" if self.job.api == CONSOLE else f"through {API_NAMES.get(self.job.api, self.job.api)}"


def state_name(job: Job) -> str:
    return "Canceling" if job.is_canceling else STATE_NAMES[job.state]


def folder_of(services: Services, job: Job) -> JobFolder:
    return services.workshop.folder(job)


def facts_of(services: Services, visit: Visit, job: Job) -> Facts:
    trains = visit.may("train")
    step, total = job.progress.get("step"), job.progress.get("total_steps")
    return Facts(
        job=job,
        label=state_name(job),
        stages=_stages(services, job),
        queue_position=services.board.queue_position(job),
        step=step if isinstance(step, int) else 0,
        total_steps=total if isinstance(total, int) else 0,
        seconds=None if job.started_at is None else (job.completed_at or time.time()) - job.started_at,
        may_cancel=trains and job.state not in FINAL and not job.is_canceling,
        may_resume=trains and job.state in (FAILED, CANCELED) and job.resolved is not None and folder_of(services, job).has_state(),
        may_clone=trains and bool((job.resolved or {}).get("request")),
    )


def _stages(services: Services, job: Job) -> tuple[Stage, ...]:
    """A job that ended early ended in the last stage that has left a log or a record."""
    if job.state == SUCCEEDED:
        return tuple(Stage(name, "done") for name in STAGE_NAMES.values())
    if job.state in STAGES:
        reached, place = STAGES.index(job.state), "now"
    elif job.state in FINAL and job.started_at is not None:
        folder = folder_of(services, job)
        left = [number for number, stage in enumerate(STAGES) if folder.log(stage).exists() or folder.stage(stage).exists()]
        reached, place = max(left, default=0), job.state
    else:
        reached, place = -1, "later"
    return tuple(
        Stage(name, "done" if number < reached else place if number == reached else "later")
        for number, name in enumerate(STAGE_NAMES.values())
    )


@dataclass(frozen=True)
class LogTail:
    lines: tuple[str, ...]
    next_offset: int
    is_cut: bool  # there is more before it


def log_tail(services: Services, job: Job) -> LogTail:
    log = log_of(services, job.id)
    start = max(0, log.size() - TAIL_BYTES)
    found = log.read(start, TAIL_BYTES, to_the_end=job.state in FINAL)
    lines = found.text.splitlines()
    return LogTail(tuple(lines[1:] if start else lines), found.next_offset, start > 0)


@dataclass(frozen=True)
class Course:
    """How the loss went: for the chart, and as a table for who sees no chart."""

    last_step: int
    table: Sequence[Point]

    @property
    def last_loss(self) -> float | None:
        return self.table[-1].loss if self.table else None


def course_of(folder: JobFolder) -> Course:
    points = all_points(folder)
    return Course(points[-1].step if points else 0, thinned(points, TABLE_ROWS))


def gallery_of(services: Services, job: Job) -> Gallery:
    return gallery(folder_of(services, job), job.resolved)


def settings_shown(job: Job) -> list[tuple[str, Any]]:
    """What was trained with, as it was used; what is None or empty says nothing."""
    resolved = job.resolved or job.inputs
    left_out = {"request", "warnings", "advanced"}
    shown = [(name, value) for name, value in resolved.items() if name not in left_out and value not in (None, "", {}, [])]
    return shown + [(f"advanced.{name}", value) for name, value in dict(resolved.get("advanced") or {}).items()]


def is_draft(job: Job) -> bool:
    """Begun on the page and not started yet."""
    return job.api == CONSOLE and job.state in BEFORE_START
