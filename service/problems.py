"""Problem: the one exception for mistakes of a client. Each view renders it in its protocol; this file has the plain rendering."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.storage.space import DiskFull, means_full

RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class FieldMistake:
    """What is wrong with one input: `field` is its name in the client's request."""

    field: str
    message: str


class Problem(Exception):
    """A mistake of a client, or a limit it has met. `detail` is one line: what is wrong, and what to send instead."""

    def __init__(
        self, status: int, title: str, detail: str, *, field: str | None = None,
        mistakes: Sequence[FieldMistake] = (), retry_after: float | None = None,
    ):  # fmt: skip
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.field = field
        self.mistakes = tuple(mistakes) or ((FieldMistake(field, detail),) if field else ())
        self.retry_after = retry_after  # seconds

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}


ProblemView = Callable[[Problem], Response]


def not_found(what: str) -> Problem:
    """Also for what belongs to somebody else: a stranger cannot tell the two apart."""
    return Problem(404, "Not found", f"there is no {what}")


def invalid(mistakes: Sequence[FieldMistake]) -> Problem:
    """Inputs that cannot be taken, every one of them named."""
    detail = "; ".join(f"{mistake.field}: {mistake.message}" for mistake in mistakes)
    return Problem(422, "Input validation failed", detail, field=mistakes[0].field if mistakes else None, mistakes=mistakes)


def problem_response(problem: Problem) -> Response:
    """RFC 7807 with what the clients look for: `detail` (Replicate), `message` (Cerebrium)."""
    content: dict[str, Any] = {"title": problem.title, "detail": problem.detail, "status": problem.status, "message": problem.detail}
    if problem.mistakes:
        content["invalid_fields"] = [{"field": mistake.field, "description": mistake.message} for mistake in problem.mistakes]
    return JSONResponse(content, problem.status, problem.headers)


async def tell_what_is_raised(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, problem_of: Callable[[Exception], Problem | None]
) -> None:  # fmt: skip
    """Run a part of the application, and answer with the problem that is made of what it raises.

    It is raised on where it is no problem, and where the answer has begun: only a closed connection tells of half an answer.
    """
    has_begun = False

    async def watched(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        await app(scope, receive, watched)
    except Exception as error:
        problem = None if has_begun else problem_of(error)
        if problem is None:
            raise
        await problem_response(problem)(scope, receive, send)


def of_validation(error: RequestValidationError) -> Problem:
    """What FastAPI found wrong with a request."""
    mistakes = []
    for found in jsonable_encoder(error.errors(), custom_encoder={bytes: repr}):
        place = [str(part) for part in found["loc"] if part not in ("body", "query", "path", "header")]
        mistakes.append(FieldMistake(".".join(place) or str(found["loc"][0]), str(found["msg"])))
    return invalid(mistakes)


def of_outage(error: BaseException) -> Problem | None:
    """What neither the client nor the service can help: a disk that is full, a database that is away. None: it is something else."""
    if means_full(error):
        return Problem(507, "Disk full", str(DiskFull()))
    if isinstance(error, OperationalError | InterfaceError):
        return Problem(503, "Database unavailable", "the database does not answer; try again in a moment", retry_after=RETRY_SECONDS)
    return None


def of_status(status: int, detail: str | None) -> Problem:
    """An answer that the framework gives by itself, such as 404 and 405."""
    title = HTTPStatus(status).phrase
    return Problem(status, title, detail or title)


def route_with(view: ProblemView) -> type[APIRoute]:
    """For `APIRouter(route_class=...)`: its routes tell problems as `view` does."""

    class ProtocolRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await handle(request)
                except Problem as problem:
                    return view(problem)
                except RequestValidationError as error:
                    return view(of_validation(error))

            return handler

    return ProtocolRoute
