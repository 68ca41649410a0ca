"""The registry: models have versions, versions are packages. It is appended to: a version never changes, its row is the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.tables import AuditEntry, Model, Project, Version
from service.identifiers import new_id
from service.training.fields import Name


@dataclass(frozen=True)
class NewVersion:
    """What a version is made of."""

    id: str  # the manifest's SHA-256
    job_id: str | None  # None: no training of ours
    label: str | None  # the client's own name of it
    notes: str | None
    template: str
    cog_version: str
    openapi_schema: Mapping[str, Any]
    card: Mapping[str, Any]
    folder: str  # the package, relative to data_dir


@dataclass(frozen=True)
class Registered:
    """A version with its model."""

    model: Model
    version: Version

    @property
    def name(self) -> str:
        return f"{self.model.owner}/{self.model.name}:{self.version.id}"

    @property
    def path(self) -> str:
        """Where it is asked for pictures: by the client's own name of the version, unless that would be two parts of a path."""
        label = self.version.label
        return f"v1/ent/{self.model.owner}/{label if label and '/' not in label else self.version.id}/{self.model.name}"


class Registry:
    """Models and versions of all projects."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time):
        self._database, self._clock = database, clock

    def owner(self, project_id: str) -> str:
        """Whom a project's models belong to."""
        with self._database.reading() as session:
            return session.scalars(select(Project.name).where(Project.id == project_id)).one()

    def add(self, project_id: str, name: str, new: NewVersion, description: str | None = None) -> Registered:
        """A version of the project's model of this name, which is made if there is none. Once more changes nothing."""
        now = self._clock()
        with self._database.writing() as session:
            owner = session.scalars(select(Project.name).where(Project.id == project_id)).one()
            model_row: dict[str, Any] = {
                "id": new_id(), "project_id": project_id, "owner": owner, "name": name, "visibility": "private",
                "description": description, "hardware": None, "details": {}, "run_count": 0, "created_at": now,
            }  # fmt: skip
            model = self._made(session, model_row)
            version_row = {
                "project_id": project_id, "id": new.id, "model_id": model.id, "job_id": new.job_id, "label": new.label,
                "notes": new.notes, "template": new.template, "cog_version": new.cog_version,
                "openapi_schema": dict(new.openapi_schema), "card": dict(new.card), "folder": new.folder, "created_at": now,
            }  # fmt: skip
            added = self._database.insert(Version).values(**version_row).on_conflict_do_nothing().returning(Version.id)
            if session.scalar(added) is not None:
                facts = {"model": f"{owner}/{name}", "job": new.job_id}
                session.add(AuditEntry(time=now, project_id=project_id, action="version added", subject_id=new.id, details=facts))
            version = session.scalars(select(Version).where(Version.project_id == project_id, Version.id == new.id)).one()
        return Registered(model, version)

    def _made(self, session: Session, row: Mapping[str, Any]) -> Model:
        """The model, which nobody deletes before the version is there, too."""
        made = self._database.insert(Model).values(**row).on_conflict_do_nothing()
        mine = (Model.project_id == row["project_id"], Model.owner == row["owner"], Model.name == row["name"])
        model: Model | None = None
        while model is None:  # one that was there may be deleted between the two
            session.execute(made)
            model = session.scalar(select(Model).where(*mine).with_for_update(read=True, key_share=True))
        return model

    def find(self, project_id: str, owner: str, name: str, version: str | None = None) -> Registered | None:
        """A version by its id or its label, the newest where several have it; without one, the newest of the model."""
        query = select(Model, Version).join(Version, Version.model_id == Model.id)
        query = query.where(Model.project_id == project_id, Model.owner == owner, Model.name == name)
        if version is not None:
            query = query.where((Version.id == version) | (Version.label == version))
        with self._database.reading() as session:
            found = session.execute(query.order_by(Version.created_at.desc(), Version.id).limit(1)).first()
        return Registered(found[0], found[1]) if found else None

    def remove(self, found: Registered) -> None:
        """The version is not known any more; its package is the caller's to delete."""
        version = found.version
        mine = (Version.project_id == version.project_id, Version.id == version.id)
        with self._database.writing() as session:
            session.execute(delete(Version).where(*mine))
            facts = {"model": f"{found.model.owner}/{found.model.name}", "job": version.job_id}
            session.add(
                AuditEntry(
                    time=self._clock(), project_id=version.project_id, action="version deleted", subject_id=version.id, details=facts
                )
            )  # fmt: skip

    def by_id(self, project_id: str, version_id: str) -> Registered | None:
        query = select(Model, Version).join(Version, Version.model_id == Model.id)
        with self._database.reading() as session:
            found = session.execute(query.where(Version.project_id == project_id, Version.id == version_id)).first()
        return Registered(found[0], found[1]) if found else None


def model_name(wanted: str, otherwise: str) -> str:
    """The name that a client gave its model, if a model can be called so."""
    try:
        return Name().read(wanted)
    except ValueError:
        return otherwise
