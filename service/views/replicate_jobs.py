"""Trainings as Replicate's two APIs show them, and what both do to make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from service.database.tables import Job, Model, Version
from service.identifiers import iso
from service.intake.addresses import ForbiddenAddress, checked_url
from service.jobs.board import NewJob
from service.jobs.results import OUTPUT_ZIP
from service.jobs.states import CANCELED, FAILED, QUEUED, SUCCEEDED
from service.logs import JobLog
from service.problems import FieldMistake, invalid
from service.services import Services
from service.storage.store import LONGEST_GET_SECONDS
from service.trainers import Trainer
from service.training import from_replicate
from service.training.fields import BadInput
from service.views.taking import checked, of_bad_input
from service.webhooks.outbox import COMPLETED, DEFAULT_EVENTS

OFFICIAL, EXPERIMENTAL = "replicate", "dreambooth"
STATUS = {QUEUED: "starting", SUCCEEDED: "succeeded", FAILED: "failed", CANCELED: "canceled"}


@dataclass(frozen=True)
class Webhook:
    """Where a client wants to hear of its training, and of what."""

    url: str | None
    events: Sequence[str]


def webhook_of(services: Services, webhook: str | None, completed: str | None, events: Sequence[str] | None) -> Webhook:
    """`webhook_completed` is the older way to ask for the end only."""
    url, field = (webhook, "webhook") if webhook else (completed, "webhook_completed")
    check_address(services, field, url)
    return Webhook(url or None, list(events or DEFAULT_EVENTS) if webhook else [COMPLETED])


def check_address(services: Services, field: str, url: str | None) -> None:
    """A Problem if this is no URL that the service would call; what its host is, is asked when it is called."""
    if not url or url.startswith((f"{services.settings.url}/", "data:")):
        return
    try:
        checked_url(url, services.workshop.rules.addresses)
    except ForbiddenAddress as error:
        raise invalid([FieldMistake(field, str(error))]) from None


def new_training(
    services: Services, trainer: Trainer, api: str, inputs: Mapping[str, Any], webhook: Webhook, details: Mapping[str, Any]
) -> NewJob:
    """Checked by the trainer that is asked for: a Problem names every input that it does not take."""
    given, resolved = dict(inputs), None
    warnings: Sequence[str] = ()
    if trainer.is_ours:
        request = checked(services, from_replicate.read, inputs, "input.")
        resolved, warnings = request.to_json(), request.warnings
    else:
        try:
            given = trainer.read(inputs)
        except BadInput as error:
            raise of_bad_input(error, "input.") from None
    for field in ("instance_data", "class_data"):
        check_address(services, f"input.{field}", given.get(field) if isinstance(given.get(field), str) else None)
    return NewJob(
        api=api, name=str(details["model"] if api == EXPERIMENTAL else details["destination"]), inputs=given, resolved=resolved,
        details=details, webhook=webhook.url, webhook_events=webhook.events, warnings=warnings, is_ready=True,
    )  # fmt: skip


def official_view(services: Services, job: Job) -> dict[str, Any]:
    """`version` is the trainer's; that of the model which came of it is in `output`."""
    version = _registered(services, job)
    weights = _weights(services, job)
    output = {"version": version, "weights": weights} if version else {"weights": weights}
    return {
        **_common(services, job, "v1"), "model": job.details["model"], "version": job.details["version"],
        "destination": job.details["destination"], "output": output if job.state == SUCCEEDED else None, "source": "api",
    }  # fmt: skip


def experimental_view(services: Services, job: Job, root: str = "v1") -> dict[str, Any]:
    """`version` is that of the model which came of it."""
    version = _registered(services, job)
    return {
        **_common(services, job, root), "model": job.details["model"], "version": version.rpartition(":")[2] if version else None,
        "output": {"weights": _weights(services, job)} if job.state == SUCCEEDED else None, "notes": job.details["notes"],
        "trainer_version": job.details["trainer_version"], "template_version": job.details["template_version"],
        "webhook_completed": job.webhook,
    }  # fmt: skip


def training_view(services: Services, job: Job) -> dict[str, Any]:
    """As the API shows it by which it came."""
    return official_view(services, job) if job.api == OFFICIAL else experimental_view(services, job)


def _common(services: Services, job: Job, root: str) -> dict[str, Any]:
    address = f"{services.settings.url}/{root}/trainings/{job.id}"
    metrics = {}
    if job.completed_at is not None:
        metrics["total_time"] = job.completed_at - job.created_at
        if job.started_at is not None:
            metrics["predict_time"] = job.completed_at - job.started_at
    return {
        "id": job.id, "status": STATUS.get(job.state, "processing"), "input": job.inputs, "error": job.error,
        "logs": JobLog(services.settings.jobs_dir / job.id).tail(), "metrics": metrics, "created_at": iso(job.created_at),
        "started_at": iso(job.started_at), "completed_at": iso(job.completed_at), "urls": {"get": address, "cancel": f"{address}/cancel"},
    }  # fmt: skip


def _weights(services: Services, job: Job) -> str | None:
    """A signed URL of output.zip, good for a day."""
    files = {file["name"]: file["key"] for file in (job.output or {}).get("files", [])}
    key = files.get(OUTPUT_ZIP)
    return services.store.get_url(key, seconds=LONGEST_GET_SECONDS, file_name=OUTPUT_ZIP) if key else None


def _registered(services: Services, job: Job) -> str | None:
    """owner/name:version of what the job registered."""
    if job.state != SUCCEEDED:
        return None
    of_job = select(Model.owner, Model.name, Version.id).join(Version, Version.model_id == Model.id).where(Version.job_id == job.id)
    with services.database.reading() as session:
        found = session.execute(of_job.order_by(Version.created_at.desc())).first()
    return f"{found[0]}/{found[1]}:{found[2]}" if found else None
