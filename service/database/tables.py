"""The tables. Times are seconds since 1970; rows of a project never show in another."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, float: Double, str: Text}


class Project(Base):
    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]  # also the owner in owner/model
    created_at: Mapped[float]
    __table_args__ = (UniqueConstraint("name"),)


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    digest: Mapped[str]  # SHA-256 of the whole key, in hex
    scopes: Mapped[list[str]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class PageSession(Base):
    """Somebody who has signed in to the page. It opens what the key opens, for as long as the key does."""

    __tablename__ = "page_sessions"
    digest: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the cookie, in hex
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[float]
    expires_at: Mapped[float]
    __table_args__ = (Index(None, "expires_at"),)


class Job(Base):
    """One training. `jobs/states.py` says what `state` holds; only `jobs/board.py` changes it."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None]
    api: Mapped[str]  # the view it came by: tiyaro, replicate, dreambooth, cerebrium, console
    name: Mapped[str]
    state: Mapped[str]
    priority: Mapped[int]
    inputs: Mapped[dict[str, Any]]  # as the client sent them
    resolved: Mapped[dict[str, Any] | None]  # what is trained: ResolvedRequest.to_json()
    details: Mapped[dict[str, Any]]  # what the view keeps: model, version, destination, notes ...
    input_key: Mapped[str | None]  # the uploaded archive in the store
    webhook: Mapped[str | None]
    webhook_events: Mapped[list[str]]
    output: Mapped[dict[str, Any] | None]  # what came of it; set before `succeeded`
    error: Mapped[str | None]
    warnings: Mapped[list[str]]
    progress: Mapped[dict[str, Any]]  # pictures, class_pictures, step, total_steps, loss, speed, eta_s
    created_at: Mapped[float]
    queued_at: Mapped[float | None]
    started_at: Mapped[float | None]
    completed_at: Mapped[float | None]
    cancel_requested_at: Mapped[float | None]
    canceled_by: Mapped[str | None]
    owner: Mapped[str | None]  # the worker that drives it
    host: Mapped[str | None]  # the machine on which local processes of it may run
    lease_expires_at: Mapped[float | None]
    device: Mapped[str | None]  # the slot of that machine that it has taken
    handle: Mapped[str | None]  # the executor's, of the stage that runs
    attempt: Mapped[int]  # submissions of the stage that runs
    restarts: Mapped[int]
    idempotency_key: Mapped[str | None]
    parent_id: Mapped[str | None]  # the job it resumes or repeats
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "state", "priority", "queued_at"),
    )

    @property
    def is_canceling(self) -> bool:
        return self.cancel_requested_at is not None and self.completed_at is None


class StoredFile(Base):
    """A file of the files API; its bytes are in the store under `key`."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    content_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    etag: Mapped[str]
    md5: Mapped[str]
    sha256: Mapped[str]
    details: Mapped[dict[str, Any]]  # the client's `metadata`
    key: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)


class Model(Base):
    """A name under which versions are registered."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    owner: Mapped[str]
    name: Mapped[str]
    visibility: Mapped[str]
    description: Mapped[str | None]
    hardware: Mapped[str | None]
    details: Mapped[dict[str, Any]]  # github_url, paper_url, license_url, cover_image_url ...
    run_count: Mapped[int]
    created_at: Mapped[float]
    __table_args__ = (UniqueConstraint("project_id", "owner", "name"),)


class Version(Base):
    """A package that can be run. Rows are added and deleted, never changed."""

    __tablename__ = "versions"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)  # the manifest's SHA-256 in hex
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    label: Mapped[str | None]  # the client's own name of the version
    notes: Mapped[str | None]
    template: Mapped[str | None]
    cog_version: Mapped[str]
    openapi_schema: Mapped[dict[str, Any]]
    card: Mapped[dict[str, Any]]  # what the model card answers
    folder: Mapped[str]  # the package, relative to data_dir
    created_at: Mapped[float]
    __table_args__ = (Index(None, "model_id", "created_at"),)


class Prediction(Base):
    """A picture asked of a version."""

    __tablename__ = "predictions"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    version_id: Mapped[str]
    model: Mapped[str]  # owner/name
    state: Mapped[str]  # starting, processing, succeeded, failed, canceled
    inputs: Mapped[dict[str, Any]]
    output: Mapped[list[str] | None]
    logs: Mapped[str]
    error: Mapped[str | None]
    webhook: Mapped[str | None]
    webhook_events: Mapped[list[str]]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    completed_at: Mapped[float | None]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    idempotency_key: Mapped[str | None]
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "state", "created_at"),
    )


class WebhookMessage(Base):
    """A webhook to send: written with the change that it tells of."""

    __tablename__ = "outbox"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)  # the order of messages of a subject
    id: Mapped[str]  # webhook-id: the same in every attempt
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    subject_id: Mapped[str]  # the job or the prediction
    event: Mapped[str]  # start, output, logs, completed
    url: Mapped[str]
    body: Mapped[str]
    is_final: Mapped[bool]
    created_at: Mapped[float]
    attempts: Mapped[int]
    next_attempt_at: Mapped[float | None]  # null: nothing more is sent
    lease_expires_at: Mapped[float | None]
    delivered_at: Mapped[float | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    __table_args__ = (UniqueConstraint("id"), Index(None, "next_attempt_at"), Index(None, "subject_id", "number"))


class WebhookSecret(Base):
    __tablename__ = "webhook_secrets"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    secret: Mapped[str]  # whsec_<base64>
    created_at: Mapped[float]
    retires_at: Mapped[float | None]


class IdempotencyRecord(Base):
    """What a POST with an Idempotency-Key was answered."""

    __tablename__ = "idempotency_records"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    created_at: Mapped[float]
    status: Mapped[int | None]  # null: the request is being worked on
    content_type: Mapped[str | None]
    body: Mapped[str | None]


class AuditEntry(Base):
    """Who changed what."""

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[float]
    project_id: Mapped[str | None]
    key_id: Mapped[str | None]
    action: Mapped[str]
    subject_id: Mapped[str | None]
    details: Mapped[dict[str, Any]]
    __table_args__ = (Index(None, "project_id", "number"),)
