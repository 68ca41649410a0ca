"""What every request and every answer keeps to: bodies no larger than they need to be, headers that browsers are safe with."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response, tell_what_is_raised
from service.services import Services

MIB = 2**20
LARGEST_BODY = 4 * MIB  # of what is no upload: inputs with pictures as data: URIs are the largest
LARGEST_FILE = 100 * MIB  # of the files API
UPLOADS = "/storage/u/"  # these count for themselves, by the limit in their token
PAGE_UPLOAD = "/trainings/new/pictures"  # forms of the page with pictures
FILES = ("/v1/files", "/dreambooth/v1/files")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
}


def largest_body(path: str, max_upload_mib: int) -> int | None:
    """Bytes; None: the route counts."""
    if path.startswith(UPLOADS):
        return None
    if path == PAGE_UPLOAD:
        return (max_upload_mib + 1) * MIB
    return min(LARGEST_FILE, max_upload_mib * MIB) + MIB if path.startswith(FILES) else LARGEST_BODY


class LimitedBodies:
    """413 for what is too long, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, services: Services):
        self._app, self._max_upload_mib = app, services.settings.max_upload_mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = largest_body(scope["path"], self._max_upload_mib) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdigit() and int(told) > limit:
            await problem_response(_too_large(limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _too_large(limit).detail)  # FastAPI lets this one through while it reads a body
            return message

        def problem_of(error: Exception) -> Problem | None:
            return _too_large(limit) if isinstance(error, HTTPException) else None

        await tell_what_is_raised(self._app, scope, counted, send, problem_of)


def _too_large(limit: int) -> Problem:
    return Problem(413, "Too large", f"this request is larger than {limit // MIB} MiB")


class SafeHeaders:
    """The headers that all answers have."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
