"""The door of the page: an API key becomes a session."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from service.identifiers import new_secret
from service.page.rendering import render
from service.page.routing import Given, Posted, page_router, posted, see
from service.page.sessions import COOKIE, SESSION_SECONDS, TOKEN_LENGTH, check_csrf, csrf_token
from service.settings import ServiceSettings

VISITOR = "tadpole_visitor"  # for the form of who is not signed in yet
FIRST_PAGE = "/trainings"
_OWN_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9/._~-]*")  # never another host: no // at its beginning, no backslash

router = page_router()


@router.get("/")
def home() -> RedirectResponse:
    return see(FIRST_PAGE)


@router.get("/login")
def door(request: Request, services: Given, next: str = FIRST_PAGE) -> Response:
    if services.sessions.find(request.cookies.get(COOKIE, "")):
        return see(own_path(next))
    return _form(request, services.settings, own_path(next))


@router.post("/login")
async def come_in(request: Request, services: Given) -> Response:
    form = await request.form(max_files=0, max_fields=10)
    check_csrf(request.cookies.get(VISITOR, ""), form.get("csrf"))
    key, wanted = str(form.get("key", "")).strip(), own_path(str(form.get("next", "")))
    address = request.client.host if request.client else ""
    token = await run_in_threadpool(services.sessions.begin, key, address)
    if token is None:
        return _form(request, services.settings, wanted, "This key is unknown, expired or revoked. It looks like tadpole_…_…", 422)
    if earlier := request.cookies.get(COOKIE):
        await run_in_threadpool(services.sessions.end, earlier)
    answer = see(wanted)
    _set(answer, services.settings, COOKIE, token, int(SESSION_SECONDS))
    answer.delete_cookie(VISITOR)
    return answer


@router.post("/logout")
def go(request: Request, services: Given, sent: Annotated[Posted, Depends(posted)]) -> Response:
    services.sessions.end(sent.visit.token)
    answer = see("/login")
    answer.delete_cookie(COOKIE)
    return answer


def own_path(wanted: str) -> str:
    """Where to go after the door: a page of ours, whatever an address says."""
    return wanted if _OWN_PATH.fullmatch(wanted) and not wanted.startswith("/login") else FIRST_PAGE


def _form(request: Request, settings: ServiceSettings, wanted: str, mistake: str = "", status: int = 200) -> Response:
    visitor = request.cookies.get(VISITOR) or new_secret(TOKEN_LENGTH)
    answer = render(request, "login.html.jinja", None, status, next=wanted, mistake=mistake, form_csrf=csrf_token(visitor))
    _set(answer, settings, VISITOR, visitor, 3600)
    return answer


def _set(answer: Response, settings: ServiceSettings, name: str, value: str, seconds: int) -> None:
    is_https = settings.url.startswith("https://")
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=is_https, path="/")
