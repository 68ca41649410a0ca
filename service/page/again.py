"""A training once more: gone on with from its last saved state, or begun again with other settings."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.database.tables import Job
from service.jobs.board import NewJob
from service.jobs.states import CANCELED, FAILED
from service.jobs.work import LAYOUTS
from service.keys import Caller
from service.problems import Problem
from service.services import Services
from service.storage.space import DiskFull, full_is_told, need_room
from service.storage.store import NoSuchObject
from service.training import from_console
from service.training.job_folder import OUTPUT_NAME, JobFolder


def input_key(job_id: str) -> str:
    return f"jobs/{job_id}/input.zip"


def resume(services: Services, caller: Caller, job: Job) -> Job:
    """A new job that goes on where this one stopped: with its pictures, its settings, and what its trainer has saved."""
    folder = services.workshop.folder(job)
    if job.state not in (FAILED, CANCELED) or job.resolved is None or not folder.has_state():
        raise Problem(409, "Nothing to resume", "this training has left no saved state to go on from; clone it to begin anew")
    new = NewJob(
        api=job.api, name=job.name, inputs=job.inputs, resolved=job.resolved, details=job.details, webhook=job.webhook,
        webhook_events=job.webhook_events, priority=job.priority, parent_id=job.id,
    )  # fmt: skip
    child = services.board.create(caller, new)
    try:
        _copy_state(folder, services.workshop.folder(child), services.settings.disk_reserve_bytes)
        if job.input_key is not None:
            copy_pictures(services, job, child)
    except Problem as problem:
        services.board.cancel(child.project_id, child.id, f"the service: {problem.detail}")
        raise
    return services.board.start(child.project_id, child.id)


def _copy_state(source: JobFolder, destination: JobFolder, reserve_bytes: int) -> None:
    """What the trainer goes on from, and what it has told and drawn up to there."""
    try:
        need_room(destination.root.parent, sum(path.stat().st_size for path in _files(source)), reserve_bytes)
        with full_is_told():
            for folder in _kept(source):
                shutil.copytree(folder, destination.output / folder.name, dirs_exist_ok=True)
    except DiskFull as error:
        shutil.rmtree(destination.root, ignore_errors=True)
        raise Problem(507, "Disk full", str(error)) from None


def _kept(source: JobFolder) -> list[Path]:
    found = [*source.output.glob(f"{OUTPUT_NAME}*-state"), source.output / f"{OUTPUT_NAME}-runs", source.samples]
    return [path for path in found if path.is_dir()]


def _files(source: JobFolder) -> Iterator[Path]:
    for folder in _kept(source):
        yield from (path for path in folder.rglob("*") if path.is_file())


def copy_pictures(services: Services, job: Job, child: Job) -> None:
    """The archive of a job as the archive of another that has not started."""
    key = input_key(child.id)
    with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
        archive = Path(folder) / "input.zip"
        try:
            services.store.download(str(job.input_key), archive)
            services.store.save(key, archive)
        except NoSuchObject:
            raise Problem(409, "Pictures deleted", "the pictures of that training are not kept any more; upload them anew") from None
        except DiskFull as error:
            raise Problem(507, "Disk full", str(error)) from None
    services.board.mark_uploading(child.project_id, child.id, key)


def has_pictures(services: Services, job: Job) -> bool:
    """Whether they can be used for another training of the page: they are there, and lie as its own do."""
    return job.api not in LAYOUTS and job.input_key is not None and services.store.head(job.input_key) is not None


def inputs_of(job: Job) -> dict[str, Any]:
    """What would have to be written on the page for the same training, whatever API it came by; without what is so by default."""
    request = dict((job.resolved or {}).get("request") or {})
    found = {}
    for field in from_console.FIELDS:
        value = request.get(field.target or "")
        if value is not None and value != field.default:
            found[field.name] = value
    found["with_prior_preservation"] = bool(request.get("with_prior_preservation"))
    if request.get("max_train_steps") is None and "num_train_epochs" not in found:
        found["num_train_epochs"] = request.get("num_train_epochs", 1)
    return {**found, "advanced": dict(request.get("advanced") or {})}
