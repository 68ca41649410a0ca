"""The keys of a project: made, shown once, revoked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from service.keys import SCOPES
from service.page.rendering import DAY, render
from service.page.routing import AdminPosted, Given, Visitor, page_router, see
from service.page.sessions import Visit
from service.problems import FieldMistake
from service.services import Services

SCOPE_TEXTS = {
    "read": "see everything of the project", "train": "start and cancel trainings", "admin": "make and revoke keys, see the queue",
}  # fmt: skip
LONGEST_NAME = 100
LONGEST_DAYS = 3650
LIVES = {"": "never", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}

router = page_router()


@router.get("/keys")
def listed(request: Request, visit: Visitor, services: Given) -> Response:
    visit.caller.require("admin")
    return _page(request, services, visit)


@router.post("/keys")
def create(request: Request, sent: AdminPosted, services: Given) -> Response:
    """The answer has the key itself; no other page ever has."""
    name, days = sent.text("name"), sent.text("days")
    scopes = [scope for scope in SCOPES if f"scope-{scope}" in sent.form]
    mistakes = []
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        mistakes.append(FieldMistake("name", f"write what the key is for, in 1 to {LONGEST_NAME} characters"))
    if not scopes:
        mistakes.append(FieldMistake("scopes", "tick at least one"))
    if days and not (days.isdecimal() and 0 < int(days[:9]) <= LONGEST_DAYS):
        mistakes.append(FieldMistake("days", f"write a number of days up to {LONGEST_DAYS}"))
    if mistakes:
        return _page(request, services, sent.visit, 422, mistakes={one.field: one.message for one in mistakes}, written=sent.texts())
    expires_at = services.board.clock() + int(days) * DAY if days else None
    key = services.keys.create(sent.visit.caller.project_id, name, scopes, expires_at)
    answer = _page(request, services, sent.visit, 201, new_key=key, new_name=name)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/keys/{key_id}/revoke")
def revoke(key_id: str, sent: AdminPosted, services: Given) -> Response:
    """Who revokes the key of their own session is signed out by that."""
    services.keys.revoke(sent.visit.caller.project_id, key_id)
    return see("/keys")


def _page(
    request: Request, services: Services, visit: Visit, status: int = 200, *, mistakes: Mapping[str, str] | None = None,
    written: Mapping[str, Any] | None = None, new_key: str = "", new_name: str = "",
) -> Response:  # fmt: skip
    keys = services.keys.listed(visit.caller.project_id)
    return render(
        request, "keys.html.jinja", visit, status, keys=sorted(keys, key=lambda key: (key.revoked_at is not None, -key.created_at)),
        scopes=SCOPE_TEXTS, lives=LIVES, mistakes=mistakes or {}, written=written or {}, new_key=new_key, new_name=new_name,
        now=services.board.clock(),
    )  # fmt: skip
