"""Models and their versions: the card, how to ask for a picture, and a form to try it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select

from service.database.tables import Model, Version
from service.jobs.pages import page_of
from service.page.rendering import render
from service.page.requests_shown import KEY
from service.page.routing import Given, Visitor, page_router
from service.page.samples import newest
from service.problems import not_found
from service.services import Services
from service.training.job_folder import JobFolder

PREDICTIONS = "/v1/predictions"
ROWS = 50
MOST_CONTROLS = 40
MOST_PICTURES = 4
KINDS = {"integer": "number", "number": "number", "boolean": "flag", "string": "text"}

router = page_router()


@dataclass(frozen=True)
class TryControl:
    """An input of a version, from its schema."""

    name: str
    label: str
    kind: str
    help: str
    default: Any
    choices: Sequence[Any]
    least: float | None
    most: float | None
    is_whole: bool
    required: bool


@router.get("/models")
def listed(request: Request, visit: Visitor, services: Given, cursor: str | None = None) -> Response:
    with services.database.reading() as session:
        page = page_of(session, Model, [Model.project_id == visit.caller.project_id], cursor, ROWS)
        ids = [model.id for model in page.rows]
        of_these = select(Version.model_id, Version.job_id, Version.created_at).where(Version.model_id.in_(ids))
        versions: dict[str, list[tuple[str | None, float]]] = {}
        for model_id, job_id, created_at in session.execute(of_these.order_by(Version.created_at)):
            versions.setdefault(model_id, []).append((job_id, created_at))
    rows = []
    for model in page.rows:
        found = versions.get(model.id, [])
        latest_job, latest_time = found[-1] if found else (None, None)
        rows.append((model, len(found), latest_time, _pictures(services, latest_job)))
    return render(request, "models.html.jinja", visit, rows=rows, page=page)


def _pictures(services: Services, job_id: str | None) -> list[str]:
    """Addresses of what the training of a version has drawn at its end, while its folder is kept."""
    if job_id is None:
        return []
    names = newest(JobFolder(services.settings.jobs_dir / job_id), MOST_PICTURES)
    return [f"/trainings/{job_id}/samples/{name}" for name in names]


@router.get("/models/{owner}/{name:path}")
def show(request: Request, owner: str, name: str, visit: Visitor, services: Given, version: str | None = None) -> Response:
    """With the newest version, or the one that is asked for."""
    project_id = visit.caller.project_id
    with services.database.reading() as session:
        model = session.scalar(select(Model).where(Model.project_id == project_id, Model.owner == owner, Model.name == name))
        if model is None:
            raise not_found(f"model {owner[:128]}/{name[:128]}")
        versions = session.scalars(select(Version).where(Version.model_id == model.id).order_by(Version.created_at.desc())).all()
    chosen = next((found for found in versions if version in (None, found.id)), None)
    if version is not None and chosen is None:
        raise not_found(f"version {version[:128]} of {owner}/{name}")
    controls = try_controls(chosen.openapi_schema) if chosen else []
    return render(
        request, "model.html.jinja", visit, model=model, versions=versions, chosen=chosen, controls=controls,
        can_try=chosen is not None and bool(controls) and visit.may("train"),
        snippets=_snippets(services, chosen, controls) if chosen else [], pictures=_pictures(services, chosen.job_id if chosen else None),
    )  # fmt: skip


def try_controls(openapi_schema: Mapping[str, Any]) -> list[TryControl]:
    """The inputs that a form can ask for, in the order that their author gave them; files and lists are for the API."""
    schemas = (openapi_schema.get("components") or {}).get("schemas") or {}
    given = schemas.get("Input") or {}
    required = set(given.get("required") or ())
    ordered = sorted((given.get("properties") or {}).items(), key=lambda item: item[1].get("x-order", 0))
    found = [_control(name, _whole(entry, schemas), name in required) for name, entry in ordered]
    return [control for control in found if control is not None][:MOST_CONTROLS]


def _whole(entry: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """With what `allOf` refers to: choices stand there."""
    whole = dict(entry)
    for part in entry.get("allOf") or ():
        whole = {**schemas.get(str(part.get("$ref", "")).rpartition("/")[2], {}), **whole}
    return whole


def _control(name: str, entry: Mapping[str, Any], required: bool) -> TryControl | None:
    kind = "choice" if entry.get("enum") else KINDS.get(str(entry.get("type")))
    if kind is None or entry.get("format") == "uri":
        return None
    return TryControl(
        name=name, label=str(entry.get("title") or name), kind="lines" if "prompt" in name and kind == "text" else kind,
        help=str(entry.get("description") or ""), default=entry.get("default"), choices=list(entry.get("enum") or ()),
        least=entry.get("minimum"), most=entry.get("maximum"), is_whole=entry.get("type") == "integer", required=required,
    )  # fmt: skip


def _snippets(services: Services, version: Version, controls: Sequence[TryControl]) -> list[tuple[str, str]]:
    url = services.settings.url
    inputs = {control.name: "a picture of ..." for control in controls if control.required and control.kind in ("text", "lines")}
    body = json.dumps({"version": version.id, "input": inputs or {"prompt": "a picture of ..."}})
    python = [
        "import replicate", "", f'client = replicate.Client(api_token="…", base_url="{url}")',
        f"prediction = client.predictions.create(version={version.id!r}, input={inputs or {'prompt': 'a picture of ...'}!r})",
        "prediction.wait()", "print(prediction.output)",
    ]  # fmt: skip
    curl = [
        f'curl -sX POST -H "Authorization: Bearer {KEY}" -H "Content-Type: application/json" -H "Prefer: wait" \\',
        f"  {shlex.quote(url + PREDICTIONS)} -d {shlex.quote(body)}",
    ]
    return [("curl", "\n".join(curl)), ("Python", "\n".join(python))]
