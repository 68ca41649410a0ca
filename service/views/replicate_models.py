"""Models and their versions as Replicate's API has them."""

from __future__ import annotations

import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from service.database.tables import Model, Version
from service.identifiers import iso, new_id
from service.jobs.pages import page_of
from service.keys import Caller, Reader, Trainer
from service.packages.registry import Registered
from service.problems import FieldMistake, Problem, invalid, not_found
from service.services import Services, services_of
from service.views.model_cards import card_view
from service.views.replicate_pages import PAGE_ROWS, page_view

router = APIRouter(prefix="/v1/models", tags=["Replicate"])
Given = Annotated[Services, Depends(services_of)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LINKS = ("github_url", "paper_url", "license_url", "cover_image_url")


class ModelExists(Problem):
    def __init__(self, name: str):
        super().__init__(409, "Model exists", f"there is a model {name} already", field="name")


class NewModel(BaseModel):
    owner: str
    name: str = Field(pattern=NAME)
    visibility: Literal["public", "private"] = "private"
    hardware: str | None = None
    description: str | None = None
    github_url: str | None = None
    paper_url: str | None = None
    license_url: str | None = None
    cover_image_url: str | None = None


@router.post("", status_code=201)
def create(body: NewModel, caller: Trainer, services: Given) -> dict[str, Any]:
    return model_view(services, add_model(services, caller, body))


@router.get("")
def listed(caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    with services.database.reading() as session:
        page = page_of(session, Model, [Model.project_id == caller.project_id], cursor, PAGE_ROWS)
    return page_view(services, "v1/models", page, [model_view(services, model) for model in page.rows])


@router.get("/{owner}/{name}")
def show(owner: str, name: str, caller: Reader, services: Given) -> dict[str, Any]:
    return model_view(services, find_model(services, caller, owner, name))


@router.delete("/{owner}/{name}", status_code=204)
def remove(owner: str, name: str, caller: Trainer, services: Given) -> None:
    """Of a model that has no versions any more."""
    model = find_model(services, caller, owner, name)
    try:
        with services.database.writing() as session:
            session.execute(delete(Model).where(Model.id == model.id))
    except IntegrityError:  # versions refer to it
        raise Problem(409, "Model has versions", "this model has versions; delete them first") from None


@router.get("/{owner}/{name}/versions")
def versions(owner: str, name: str, caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    model = find_model(services, caller, owner, name)
    with services.database.reading() as session:
        page = page_of(session, Version, [Version.model_id == model.id], cursor, PAGE_ROWS)
    return page_view(services, f"v1/models/{model.owner}/{model.name}/versions", page, [version_view(found) for found in page.rows])


@router.get("/{owner}/{name}/versions/{version}")
def show_version(owner: str, name: str, version: str, caller: Reader, services: Given) -> dict[str, Any]:
    return version_view(_registered(services, caller, owner, name, version).version)


@router.get("/{owner}/{name}/versions/{version}/card")
def card(owner: str, name: str, version: str, caller: Reader, services: Given) -> dict[str, Any]:
    """What the model is, and how to ask it for a picture; `modelCard` in it is a link for people without a key."""
    return card_view(services, _registered(services, caller, owner, name, version))


@router.delete("/{owner}/{name}/versions/{version}", status_code=204)
def remove_version(owner: str, name: str, version: str, caller: Trainer, services: Given) -> None:
    """With its package. What the training left for download stays."""
    found = _registered(services, caller, owner, name, version)
    services.registry.remove(found)
    shutil.rmtree(services.settings.data_dir / found.version.folder, ignore_errors=True)


def add_model(services: Services, caller: Caller, new: NewModel, field: str = "owner") -> Model:
    """Owned by the caller's project, whose name is the owner's."""
    account = services.keys.project_name(caller.project_id)
    if new.owner != account:
        raise invalid([FieldMistake(field, f'the models of this key belong to "{account}"; write {account}/{new.name}')])
    model = Model(
        id=new_id(), project_id=caller.project_id, owner=new.owner, name=new.name, visibility=new.visibility,
        description=new.description, hardware=new.hardware, details={link: getattr(new, link) for link in LINKS}, run_count=0,
        created_at=services.board.clock(),
    )  # fmt: skip
    try:
        with services.database.writing() as session:
            session.add(model)
    except IntegrityError:
        raise ModelExists(f"{new.owner}/{new.name}") from None
    return model


def find_model(services: Services, caller: Caller, owner: str, name: str) -> Model:
    mine = (Model.project_id == caller.project_id, Model.owner == owner, Model.name == name)
    with services.database.reading() as session:
        model = session.scalar(select(Model).where(*mine))
    if model is None:
        raise not_found(f"model {owner[:128]}/{name[:128]}")
    return model


def _registered(services: Services, caller: Caller, owner: str, name: str, version: str) -> Registered:
    """By its id alone: labels are not for sure."""
    found = services.registry.by_id(caller.project_id, version)
    if found is None or (found.model.owner, found.model.name) != (owner, name):
        raise not_found(f"version {version[:128]} of {owner[:128]}/{name[:128]}")
    return found


def model_view(services: Services, model: Model) -> dict[str, Any]:
    with services.database.reading() as session:
        newest = session.scalar(select(Version).where(Version.model_id == model.id).order_by(Version.created_at.desc()).limit(1))
    return {
        "url": f"{services.settings.url}/v1/models/{model.owner}/{model.name}", "owner": model.owner, "name": model.name,
        "description": model.description, "visibility": model.visibility, "run_count": model.run_count,
        **{link: model.details.get(link) for link in LINKS}, "default_example": None,
        "latest_version": version_view(newest) if newest else None, "created_at": iso(model.created_at),
    }  # fmt: skip


def version_view(version: Version) -> dict[str, Any]:
    return {
        "id": version.id, "created_at": iso(version.created_at), "cog_version": version.cog_version,
        "openapi_schema": version.openapi_schema, "notes": version.notes,
    }  # fmt: skip
