"""Tiyaro's training API: GraphQL at /graphql, with the names of both of its generations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import strawberry
from sqlalchemy import select
from strawberry.types import Info

from service.database.tables import Job, Model, Version
from service.identifiers import iso
from service.jobs.board import NewJob
from service.jobs.states import BEFORE_START, CANCELED, FAILED, SUCCEEDED
from service.keys import Caller
from service.packages.registry import Registered
from service.problems import Problem, not_found
from service.services import Services
from service.storage.store import NoSuchObject, TooLarge
from service.training import from_tiyaro
from service.views.taking import checked, upload_limit
from service.views.tiyaro_types import JobInput, JobStatus, JobStatusEnum, JobType, RetrainedModels, TrainedModels, as_sent

API = "tiyaro"
STATUS = {SUCCEEDED: JobStatusEnum.done, FAILED: JobStatusEnum.failed, CANCELED: JobStatusEnum.failed}
LONGEST_OBJECT_NAME = 255


@dataclass(frozen=True)
class Asked:
    """The context of a query: who asks what."""

    services: Services
    caller: Caller

    def job(self, job_id: str | None) -> Job | None:
        """A job of this API that belongs to the caller's project."""
        found = self.services.board.find(self.caller.project_id, job_id) if job_id else None
        return found if found is not None and found.api == API else None

    def waiting_job(self, job_id: str | None) -> Job:
        found = self.job(job_id)
        if found is None:
            raise not_found(f"job {(job_id or '')[:64]}")
        return found


Context = Info[Asked, None]
Text = str | None


@strawberry.type
class Query:
    @strawberry.field
    def getJobInputURL(self, info: Context, jobID: Text = strawberry.UNSET, objName: Text = strawberry.UNSET) -> str | None:
        """To PUT the archive to. Asked with another name, it is another archive, which takes the place of the first."""
        asked = info.context
        asked.caller.require("train")
        job = asked.waiting_job(jobID or None)
        name = objName or ""
        if not 0 < len(name) <= LONGEST_OBJECT_NAME:
            raise Problem(422, "Bad objName", f"objName: name your zip file, in 1 to {LONGEST_OBJECT_NAME} characters", field="objName")
        key = input_key(job.id, name)
        if not asked.services.board.mark_uploading(job.project_id, job.id, key):
            raise Problem(409, "Job started", "jobID: this job has been started, and takes no pictures any more; make a new one")
        if job.input_key not in (None, key):
            asked.services.store.delete(str(job.input_key))
        return asked.services.store.put_url(key, max_bytes=upload_limit(asked.services))

    @strawberry.field
    def getJobStatus(self, info: Context, jobID: Text = strawberry.UNSET) -> JobStatus | None:
        job = info.context.job(jobID or None)
        if job is None or job.state in BEFORE_START:
            return JobStatus(statusEnum=JobStatusEnum.notfound)
        return JobStatus(
            statusEnum=STATUS.get(job.state, JobStatusEnum.running),
            errMsg=job.error,
            created=iso(job.created_at),
            finished=iso(job.completed_at),
            jobInput=json.dumps({"jobType": JobType.dreambooth.value, "dreamboothInput": job.inputs}),
        )

    @strawberry.field
    def getTrainedModels(self, info: Context, jobID: Text = strawberry.UNSET) -> list[TrainedModels | None] | None:
        return [TrainedModels(**found) for found in _models(info.context, jobID or None)]

    @strawberry.field(description="older name of getTrainedModels", deprecation_reason="use getTrainedModels")
    def getRetrainedModels(self, info: Context, jobID: Text = strawberry.UNSET) -> list[RetrainedModels | None] | None:
        return [RetrainedModels(**found) for found in _models(info.context, jobID or None)]


@strawberry.type
class Mutation:
    @strawberry.mutation
    def newJobID(self, info: Context, jobType: JobType | None = strawberry.UNSET) -> str | None:
        info.context.caller.require("train")
        return info.context.services.board.create(info.context.caller, NewJob(api=API)).id

    @strawberry.mutation
    def startTrainingJob(self, info: Context, jobID: Text = strawberry.UNSET, input: JobInput | None = strawberry.UNSET) -> str | None:
        return _start(info.context, jobID or None, input or None)

    @strawberry.mutation(description="older name of startTrainingJob", deprecation_reason="use startTrainingJob")
    def startRetrainingJob(self, info: Context, jobID: Text = strawberry.UNSET, input: JobInput | None = strawberry.UNSET) -> str | None:
        return _start(info.context, jobID or None, input or None)


def input_key(job_id: str, name: str) -> str:
    """Where the archive of this name lies: names of clients are no names of ours."""
    return f"jobs/{job_id}/input-{hashlib.sha256(name.encode()).hexdigest()[:16]}.zip"


def _start(asked: Asked, job_id: str | None, given: JobInput | None) -> str:
    """Once more changes nothing: it is the same job, which runs once."""
    asked.caller.require("train")
    job = asked.waiting_job(job_id)
    if job.state not in BEFORE_START:
        return job.id
    if not given or not given.dreamboothInput:
        raise Problem(422, "No input", "input: a job needs dreamboothInput", field="input.dreamboothInput")
    inputs = as_sent(given.dreamboothInput)
    resolved = checked(asked.services, from_tiyaro.read, inputs, "input.dreamboothInput.")
    key = input_key(job.id, inputs["datasetS3ObjName"])
    if job.input_key != key:
        raise _no_archive("getJobInputURL was not asked for an archive of this name; ask with objName, and PUT it there")
    try:
        asked.services.store.uploaded(key, max_bytes=upload_limit(asked.services))
    except NoSuchObject:
        raise _no_archive("nothing was uploaded under this name yet; PUT the zip file to the URL of getJobInputURL first") from None
    except TooLarge as error:
        raise _no_archive(str(error)) from None
    changes: dict[str, Any] = {"inputs": inputs, "resolved": resolved.to_json(), "warnings": list(resolved.warnings)}
    return asked.services.board.start(job.project_id, job.id, name=inputs["name"], **changes).id


def _no_archive(message: str) -> Problem:
    field = "input.dreamboothInput.datasetS3ObjName"
    return Problem(422, "No pictures", f"{field}: {message}", field=field)


def _models(asked: Asked, job_id: str | None) -> list[dict[str, str]]:
    """What is registered of the job; nothing before it has succeeded."""
    job = asked.job(job_id)
    if job is None or job.state != SUCCEEDED:
        return []
    of_job = select(Version, Model).join(Model, Model.id == Version.model_id).where(Version.job_id == job.id)
    with asked.services.database.reading() as session:
        rows = session.execute(of_job.order_by(Version.created_at)).all()
    return [_trained(asked.services, Registered(model, version)) for version, model in rows]


def _trained(services: Services, found: Registered) -> dict[str, str]:
    model, version = found.model, found.version
    return {
        "vendor": model.owner,
        "version": version.label or version.id,
        "name": model.name,
        "url": f"{services.settings.url}/{found.path}",
        "modelCard": services.card_links.link(version.project_id, version.id),
    }
