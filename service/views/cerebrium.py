"""The wire of Cerebrium's command line: a job is asked for, its archive uploaded, and with that it starts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from service.database.tables import Job
from service.identifiers import iso
from service.intake.zip_directory import BadArchive
from service.jobs.board import NewJob
from service.jobs.results import OUTPUT_ZIP
from service.jobs.states import BEFORE_START, CANCELED, CREATED, FAILED, FINAL, QUEUED, SUCCEEDED, UPLOADING
from service.keys import Reader, Trainer
from service.logs import JobLog
from service.problems import FieldMistake, Problem, invalid, not_found
from service.services import Services, services_of
from service.storage.store import LONGEST_GET_SECONDS, NoSuchObject, TooLarge
from service.training import from_cerebrium
from service.training.fields import Name
from service.views.cerebrium_archive import read_config
from service.views.taking import checked, digest_of, twin, upload_limit

API = "cerebrium"
PENDING = (CREATED, UPLOADING, QUEUED)
STATUS = {**dict.fromkeys(PENDING, "pending"), SUCCEEDED: "succeeded", FAILED: "failed", CANCELED: "failed"}
TWIN_SECONDS = 60.0
MOST_LOG_BYTES = 4 << 20
MOST_JOBS = 100
router = APIRouter(tags=["Cerebrium"])
Given = Annotated[Services, Depends(services_of)]


async def _body(request: Request) -> dict[str, Any]:
    """Whatever its Content-Type says, it is JSON."""
    try:
        found = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(400, "Bad body", "the body is no JSON object")
    return found


Body = Annotated[dict[str, Any], Depends(_body)]


@router.post("/train")
def train(body: Body, caller: Trainer, services: Given) -> dict[str, str]:
    """A job that waits for its archive. The client repeats itself for a minute: that is one job."""
    name, model = _text(body, "name"), _text(body, "hf_model_path")
    digest = digest_of(body)
    job = twin(services, caller, (API,), digest, TWIN_SECONDS)
    if job is None:
        details = {"request_digest": digest, "hf_model_path": model}
        job = services.board.create(caller, NewJob(api=API, name=name, details=details))
    key = f"jobs/{job.id}/input.zip"
    if not services.board.mark_uploading(caller.project_id, job.id, key):
        raise Problem(409, "Job started", f"this job has its archive already, as {job.id}; send another name for another one")
    return {"uploadUrl": services.store.put_url(key, max_bytes=upload_limit(services)), "jobId": job.id}


@router.post("/job-logs")
def job_logs(body: Body, caller: Reader, services: Given) -> dict[str, Any]:
    job = _job(services, caller.project_id, body)
    log = JobLog(services.settings.jobs_dir / job.id).read(0, MOST_LOG_BYTES, to_the_end=job.state in FINAL).text
    chunks = [text for text in (log, job.error) if text]
    return {"status": _status(job), "trainingLogs": [text if text.endswith("\n") else f"{text}\n" for text in chunks]}


@router.post("/jobs")
def jobs(caller: Reader, services: Given) -> dict[str, Any]:
    """The newest hundred, the oldest of them first."""
    found = services.board.page(caller.project_id, apis=(API,), limit=MOST_JOBS).rows
    rows = [
        {"id": job.id, "name": job.name, "projectId": job.project_id, "createdAt": iso(job.created_at), "status": _status(job)}
        for job in reversed(found)
    ]
    return {"trainingJobArr": rows}


@router.post("/download-model")
def download_model(body: Body, caller: Reader, services: Given) -> dict[str, str]:
    """A URL that needs no key."""
    job = _job(services, caller.project_id, body)
    if job.state != SUCCEEDED:
        raise Problem(409, "No model", f"this job is {_status(job)}: there is a model when it has succeeded")
    key = _result(job)
    if key is None or services.store.head(key) is None:
        raise not_found(f"model of job {job.id}: it was deleted")
    return {"message": services.store.get_url(key, seconds=LONGEST_GET_SECONDS, file_name=f"{job.name.replace('/', '-')}.zip")}


@router.delete("/delete-model")
def delete_model(body: Body, caller: Trainer, services: Given) -> dict[str, bool]:
    """What jobs of this name left; the jobs themselves stay listed."""
    name = _text(body, "name")
    done = services.board.page(caller.project_id, apis=(API,), states=(SUCCEEDED,), limit=MOST_JOBS).rows
    keys = [file["key"] for job in done if job.name == name for file in (job.output or {}).get("files", [])]
    there = [key for key in keys if services.store.head(key) is not None]
    if not there:
        raise not_found(f"model {name[:128]}")
    for key in there:
        services.store.delete(key)
    return {"success": True}


def start_uploaded(services: Services, job: Job) -> None:
    """Queues a job whose archive is there; one whose configuration cannot be taken fails, and says why."""
    if job.state not in BEFORE_START or job.input_key is None:
        return
    try:
        config = _config(services, job, job.input_key)
        inputs = {"name": job.name, "hf_model_path": job.details["hf_model_path"], **config}
        resolved = checked(services, from_cerebrium.read, inputs)
    except NoSuchObject:
        return
    except (BadArchive, TooLarge) as error:
        services.board.advance(job.id, job.state, FAILED, error=str(error))
        return
    except Problem as problem:
        if problem.status != 422:
            raise
        services.board.advance(job.id, job.state, FAILED, error=problem.detail)
        return
    changes: dict[str, Any] = {"inputs": inputs, "resolved": resolved.to_json(), "warnings": list(resolved.warnings)}
    services.board.start(job.project_id, job.id, **changes)


def _config(services: Services, job: Job, key: str) -> dict[str, Any]:
    """Without the key that clients write into it."""
    services.store.uploaded(key, max_bytes=upload_limit(services))
    with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
        archive = Path(folder) / "input.zip"
        services.store.download(key, archive)
        config = read_config(archive)
    return {name: value for name, value in json.loads(json.dumps(config, default=str)).items() if name != "api_key"}


def _job(services: Services, project_id: str, body: Mapping[str, Any]) -> Job:
    """One that waits is looked after: a bucket does not tell when an archive is there."""
    job_id = _text(body, "jobId")
    job = services.board.find(project_id, job_id)
    if job is None or job.api != API:
        raise not_found(f"job {job_id[:64]}")
    if job.state in BEFORE_START:
        start_uploaded(services, job)
        job = services.board.get(project_id, job_id)
    return job


def _status(job: Job) -> str:
    return STATUS.get(job.state, "running")


def _result(job: Job) -> str | None:
    return {file["name"]: file["key"] for file in (job.output or {}).get("files", [])}.get(OUTPUT_ZIP)


def _text(body: Mapping[str, Any], field: str) -> str:
    try:
        return str(Name().read(body.get(field)))
    except ValueError as error:
        raise invalid([FieldMistake(field, str(error))]) from None
