"""What all routes of the page have: who visits, forms that are really ours, and mistakes told as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from service.page.rendering import render
from service.page.sessions import COOKIE, Visit, check_csrf
from service.problems import Problem, of_status, of_validation
from service.services import Services, services_of

MOST_FIELDS = 500
MOST_FILES = 5001  # what an archive may hold, and one more that says so
FIELD_BYTES = 64 << 10
SEE_OTHER = 303


class SignedOut(Exception):
    """Nobody is signed in: to the door, and back here afterwards."""


class PageRoute(APIRoute):
    """Problems are shown to people: as a page, or to the script that asked as a line."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except SignedOut:
                return _to_the_door(request)
            except Problem as problem:
                return tell(request, problem)
            except RequestValidationError as error:
                return tell(request, of_validation(error))
            except HTTPException as error:
                return tell(request, of_status(error.status_code, error.detail))

        return handler


def page_router() -> APIRouter:
    return APIRouter(include_in_schema=False, route_class=PageRoute)


def is_asked_by_script(request: Request) -> bool:
    return "hx-request" in request.headers


def tell(request: Request, problem: Problem) -> Response:
    if is_asked_by_script(request):
        return PlainTextResponse(problem.detail, problem.status, problem.headers)
    answer = render(request, "problem.html.jinja", getattr(request.state, "visit", None), problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer


def _to_the_door(request: Request) -> Response:
    wanted = request.url.path if request.method == "GET" else "/trainings"
    door = f"/login?next={quote(wanted, safe='/')}"
    if is_asked_by_script(request):
        return Response(status_code=204, headers={"HX-Redirect": door})
    return RedirectResponse(door, SEE_OTHER)


def visit_of(request: Request, services: Annotated[Services, Depends(services_of)]) -> Visit:
    """A dependency: who is signed in."""
    found = services.sessions.find(request.cookies.get(COOKIE, ""))
    if found is None:
        raise SignedOut
    request.state.visit = found  # a problem's page has the visitor's menu, too
    services.door.pace(found.caller, request.method)
    found.caller.require("read")
    if not found.caller.is_noted:
        services.keys.note_use(found.caller)
    return found


Given = Annotated[Services, Depends(services_of)]
Visitor = Annotated[Visit, Depends(visit_of)]


@dataclass(frozen=True)
class Posted:
    """A form that somebody who is signed in has sent, from a page of ours."""

    visit: Visit
    form: FormData

    def text(self, name: str) -> str:
        """What was written in the field, without the blanks around it; "" if there is no such field."""
        value = self.form.get(name)
        return value.strip() if isinstance(value, str) else ""

    def texts(self) -> dict[str, str]:
        return {name: value.strip() for name, value in self.form.items() if isinstance(value, str)}

    def files(self, name: str) -> list[UploadFile]:
        """Those that were chosen: browsers send an empty one where none was."""
        found = [value for value in self.form.getlist(name) if isinstance(value, UploadFile)]
        return [file for file in found if file.filename or file.size]


async def posted(request: Request, visit: Visitor) -> Posted:
    """A dependency: the visitor is known before anything of the form is read."""
    form = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES)
    check_csrf(visit.token, request.headers.get("x-csrf-token") or form.get("csrf"))
    return Posted(visit, form)


async def trainer_posted(sent: Annotated[Posted, Depends(posted)]) -> Posted:
    sent.visit.caller.require("train")
    return sent


async def admin_posted(sent: Annotated[Posted, Depends(posted)]) -> Posted:
    sent.visit.caller.require("admin")
    return sent


TrainerPosted = Annotated[Posted, Depends(trainer_posted)]
AdminPosted = Annotated[Posted, Depends(admin_posted)]


def see(address: str) -> RedirectResponse:
    """After a form was taken: look there. What is loaded again sends nothing again."""
    return RedirectResponse(address, SEE_OTHER)
