"""Model cards by link: JSON for programs, a page for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape
from sqlalchemy import select

from service.database.tables import Model, Version
from service.identifiers import iso
from service.packages.registry import Registered
from service.problems import not_found
from service.services import Services, services_of

router = APIRouter(prefix="/cards", tags=["models"])
Given = Annotated[Services, Depends(services_of)]
HERE = Path(__file__).parent
PAGES = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(["html", "jinja"]), trim_blocks=True, lstrip_blocks=True)
PAGE, STYLE = "model_card.html.jinja", "model_card.css"
LONGEST = 200


@router.get("/model_card.css", include_in_schema=False)
def style() -> Response:
    return Response((HERE / STYLE).read_text(encoding="utf-8"), media_type="text/css")


@router.get("/{version_id}")
def show(version_id: str, services: Given, token: str = "", accept: Annotated[str, Header()] = "") -> Response:
    """Who has the link may read the card; the model itself needs a key."""
    found = _find(services, version_id, token)
    if found is None:
        raise not_found(f"model card {version_id[:64]}; its link is in getTrainedModels, and in the model's versions")
    card = card_view(services, found)
    if "text/html" not in accept:
        return JSONResponse(card)
    sample = json.dumps(card["sampleRequest"], indent=1, ensure_ascii=False)
    return HTMLResponse(PAGES.get_template(PAGE).render(card=card, sample=sample, created=iso(found.version.created_at)))


def card_view(services: Services, registered: Registered) -> dict[str, Any]:
    """With the addresses that it has today."""
    model, version = registered.model, registered.version
    return {
        **version.card, "vendor": model.owner, "id": version.id, "notes": version.notes,
        "url": f"{services.settings.url}/{registered.path}",
        "predictions": f"{services.settings.url}/v1/predictions", "modelCard": services.card_links.link(model.project_id, version.id),
    }  # fmt: skip


def _find(services: Services, version_id: str, token: str) -> Registered | None:
    if not 0 < len(version_id) <= LONGEST or len(token) > LONGEST:
        return None
    query = select(Model, Version).join(Version, Version.model_id == Model.id).where(Version.id == version_id)
    with services.database.reading() as session:
        rows = session.execute(query).all()
    fitting = (Registered(model, version) for model, version in rows)
    return next((row for row in fitting if services.card_links.fits(token, row.model.project_id, version_id)), None)
