"""Jobs on the service: lists, states, logs, results, and their cancellation."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from library.errors import UserError
from service.cli.access import find_access
from service.cli.forms import Asked, words_and_key
from service.cli.remote import Failed, Remote
from service.cli.show import bytes_bar, figures_of, steps_bar, tell_columns, tell_fields, tell_json
from service.jobs.states import BEFORE_START, CANCELED, FAILED, FINAL, QUEUED, SUCCEEDED

MOST_RECENT = 10
LOOKS_EVERY = 1.0  # seconds, while a log is followed
_STATUS = {SUCCEEDED: "succeeded", FAILED: "failed", CANCELED: "failed", **dict.fromkeys((*BEFORE_START, QUEUED), "pending")}
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

OneJob = Annotated[list[str], typer.Argument(metavar="JOB_ID [API_KEY]", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class CheckJobStatus(Asked):
    words: OneJob
    include_logs: Annotated[str, typer.Option(metavar="True|False", help="Show the log, too.")] = "False"


@dataclass(frozen=True, kw_only=True)
class DownloadModel(Asked):
    words: OneJob
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [JOB_ID.zip]")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False


@dataclass(frozen=True, kw_only=True)
class MostRecentJobs(Asked):
    words: Annotated[list[str], typer.Argument(metavar="PROJECT_ID [API_KEY]", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class TrainingJobs(Asked):
    words: Annotated[list[str] | None, typer.Argument(metavar="[API_KEY]", show_default=False)] = None
    last_n: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many, of the newest.")] = MOST_RECENT


@dataclass(frozen=True, kw_only=True)
class TrainingLogs(Asked):
    words: OneJob
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until the training is over; the exit code is 1 if it fails.")
    ] = True


@dataclass(frozen=True, kw_only=True)
class Cancel(Asked):
    words: OneJob


def check_job_status(asked: CheckJobStatus) -> None:
    """Show what has become of a training. An API key may stand after its id."""
    job_id, key = _job(asked.words, asked.api_key)
    include_logs = _truth("--include-logs", asked.include_logs)
    with Remote(find_access(asked.server, key)) as remote:
        job = remote.get(f"/v1/jobs/{job_id}")
        log = _whole_log(remote, job_id) if include_logs else ""
    if asked.json:
        tell_json({"id": job_id, "status": status_of(job["state"]), **job, **({"trainingLogs": log} if include_logs else {})})
        return
    _tell_job(job)
    if include_logs:
        print(f"\n{log}", end="")


def download_model(asked: DownloadModel) -> None:
    """Fetch what a training has made. It is a zip file of the trained weights and the validation pictures."""
    job_id, key = _job(asked.words, asked.api_key)
    destination = asked.output or Path(f"{job_id}.zip")
    if destination.is_dir():
        destination = destination / f"{job_id}.zip"
    if not destination.parent.is_dir():
        raise UserError(f"--output: there is no folder {destination.parent}: make it, or name another file")
    if destination.exists() and not asked.overwrite:
        raise UserError(f"{destination} is there: name another file with --output, or replace it with --overwrite")
    with Remote(find_access(asked.server, key)) as remote:
        url = remote.post("/download-model", {"jobId": job_id})["message"]
        remote.download(url, destination, lambda size: bytes_bar("fetching the model", size, asked.json))
    size = destination.stat().st_size
    if asked.json:
        tell_json({"id": job_id, "file": str(destination), "bytes": size})
    else:
        tell_fields({"file": destination, "bytes": size})


def get_most_recent_jobs(asked: MostRecentJobs) -> None:
    """List the 10 newest trainings of a project. An API key may stand after its id."""
    (project,), key = words_and_key(asked.words, ("PROJECT_ID",), asked.api_key)
    with Remote(find_access(asked.server, key)) as remote:
        jobs = _listed(remote)
        others = {job["projectId"] for job in jobs} - {project}
        if others and project != remote.get("/v1/account")["username"]:  # its name will do
            raise Failed(f"this key is of the project {', '.join(sorted(others))}, not of {project}")
    _tell_jobs(jobs[-MOST_RECENT:], asked.json)


def get_training_jobs(asked: TrainingJobs) -> None:
    """List the newest trainings of the key's project."""
    words = asked.words or []
    if len(words) > 1:
        raise UserError(f"{len(words)} words are too many: write get-training-jobs [API_KEY]")
    with Remote(find_access(asked.server, asked.api_key or next(iter(words), None))) as remote:
        _tell_jobs(_listed(remote)[-asked.last_n :], asked.json)


def get_training_logs(asked: TrainingLogs) -> int:
    """Show the log of a training as it is written. An API key may stand after its id."""
    job_id, key = _job(asked.words, asked.api_key)
    texts: list[str] = []
    offset, job = 0, {}
    with Remote(find_access(asked.server, key)) as remote, steps_bar(asked.json) as tell:
        while True:
            job = remote.get(f"/v1/jobs/{job_id}")
            offset = _tell_log(remote, job_id, offset, texts if asked.json else None)
            tell(job["progress"])
            if not asked.follow or job["state"] in FINAL:
                break
            time.sleep(LOOKS_EVERY)
    status = status_of(job["state"])
    if asked.json:
        tell_json({"id": job_id, "status": status, "trainingLogs": "".join(texts), "error": job["error"]})
    if job["state"] in (FAILED, CANCELED):
        raise Failed(
            f"the training was canceled{_because(job)}" if job["state"] == CANCELED else f"the training failed{_because(job)}"
        )
    return 0


def cancel(asked: Cancel) -> None:
    """Cancel a training. What runs gets half a minute to save; once more changes nothing."""
    job_id, key = _job(asked.words, asked.api_key)
    with Remote(find_access(asked.server, key)) as remote:
        job = remote.post(f"/v1/jobs/{job_id}/cancel", {})
    if asked.json:
        tell_json(job)
    else:
        print("it is ending" if job["canceling"] else f"it is {job['state']}")


def status_of(state: str) -> str:
    """In the four words of this command line."""
    return _STATUS.get(state, "running")


def _job(words: list[str], key: str | None) -> tuple[str, str | None]:
    (job_id,), key = words_and_key(words, ("JOB_ID",), key)
    if not _JOB_ID.fullmatch(job_id):
        raise UserError(f"'{job_id}' is no id of a training: tadpole get-training-jobs lists them")
    return job_id, key


def _truth(option: str, text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise UserError(f"{option}: write True or False, not {text}")


def _listed(remote: Remote) -> list[dict[str, Any]]:
    """The oldest first."""
    return remote.post("/jobs", {})["trainingJobArr"]


def _tell_jobs(jobs: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        tell_json(jobs)
    elif not jobs:
        print("there are no trainings yet")
    else:
        rows = [[job["id"], job["name"], job["status"], job["createdAt"], job["projectId"]] for job in jobs]
        tell_columns(("ID", "NAME", "STATUS", "CREATED", "PROJECT"), rows)


def _tell_job(job: dict[str, Any]) -> None:
    progress, status = job["progress"], status_of(job["state"])
    steps = f"{progress['step']} of {progress.get('total_steps') or '?'}" if progress.get("step") is not None else None
    tell_fields(
        {
            "id": job["id"],
            "name": job["name"],
            "status": f"{status} ({'canceling' if job['canceling'] else job['state']})" if status != job["state"] else status,
            "step": steps,
            "figures": figures_of(progress),
            "place in the queue": job.get("queue_position"),
            "error": job["error"],
            "created": job["created_at"],
            "started": job["started_at"],
            "completed": job["completed_at"],
        }
    )
    for warning in job["warnings"]:
        print(f"warning: {warning}")


def _tell_log(remote: Remote, job_id: str, offset: int, kept: list[str] | None) -> int:
    """Print (or keep) all that the log has from this byte on; where it ends now."""
    while True:
        part = remote.get(f"/v1/jobs/{job_id}/logs", offset=offset)
        if kept is not None:
            kept.append(part["text"])
        elif part["text"]:
            print(part["text"], end="", flush=True)
        if part["next_offset"] == offset:
            return offset
        offset = part["next_offset"]


def _whole_log(remote: Remote, job_id: str) -> str:
    texts: list[str] = []
    _tell_log(remote, job_id, 0, texts)
    return "".join(texts)


def _because(job: dict[str, Any]) -> str:
    reason = " ".join(str(job["error"] or "").split())
    return f": {reason}" if reason else ""
