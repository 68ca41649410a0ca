"""PUT and GET of signed URLs: whoever has the URL has the right, and nothing but this one right. Errors are XML as S3 has them."""
from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.sax.saxutils import escape

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers
from starlette.responses import FileResponse

from service.storage.body import USUAL_PATIENCE, Body, Left, Patience, TooSlow
from service.storage.incoming import Incoming
from service.storage.local import URL_PATH, LocalStore
from service.storage.signing import BadToken, ExpiredToken, Grant
from service.storage.space import DiskFull
from service.storage.store import NoSuchObject, StoredObject, TooLarge

_WRITTEN_AT_ONCE = 1 << 20  # bytes, so that a thread is asked less often
_KINDS = {  # what a browser may take a download for; all else is bytes
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".zip": "application/zip",
    ".json": "application/json",
    ".txt": "text/plain",
}
_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-store",
}


@dataclass(frozen=True)
class UploadHooks:
    """What the service has to say to uploads; both are called in a thread.

    may_put(key): whether the object may still be replaced, asked before an upload and again at its end.
    stored(object): the upload is whole and on the disk; a client hears of success after this returned.
    """

    may_put: Callable[[str], bool] = lambda key: True
    stored: Callable[[StoredObject], None] = lambda stored: None


class Refusal(Exception):
    """An answer that is no success: HTTP status, S3's code, one line."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code


def storage_router(store: LocalStore, hooks: UploadHooks, patience: Patience = USUAL_PATIENCE) -> APIRouter:
    """The routes that the URLs of this store lead to."""
    router = APIRouter()

    @router.api_route(URL_PATH + "{token}", methods=["PUT", "GET", "HEAD", "POST", "DELETE", "PATCH"], include_in_schema=False)
    async def signed(request: Request, token: str) -> Response:
        body = Body(request, patience)
        try:
            grant = _granted(store, request.method, token)
            if grant.method == "PUT":
                return await _put(request.headers, body, store, grant, hooks)
            return await run_sync(_get, store, grant)
        except Refusal as refusal:
            await body.drain()
            return _told(refusal)

    return router


def _granted(store: LocalStore, method: str, token: str) -> Grant:
    try:
        grant = store.grant(token)
    except BadToken:
        raise Refusal(403, "SignatureDoesNotMatch", "The URL is not one that this server has signed.") from None
    except ExpiredToken:
        raise Refusal(403, "AccessDenied", "Request has expired") from None
    if method != grant.method and (method, grant.method) != ("HEAD", "GET"):
        raise Refusal(403, "SignatureDoesNotMatch", f"This URL is signed for {grant.method}, not for {method}.")
    return grant


# --- PUT ---


async def _put(headers: Headers, body: Body, store: LocalStore, grant: Grant, hooks: UploadHooks) -> Response:
    await _ask_whether_allowed(hooks, grant.key)
    try:
        with store.receiving(grant.max_bytes, _announced_bytes(headers)) as incoming:
            await _receive(body, incoming)
            await _ask_whether_allowed(hooks, grant.key)
            stored = await run_sync(_finish, store, grant.key, incoming, headers.get("content-md5"))
    except TooLarge as error:
        raise Refusal(413, "EntityTooLarge", f"{error}.") from None
    except DiskFull as error:
        raise Refusal(507, "InsufficientStorage", f"{error}.") from None
    except TooSlow as error:
        raise Refusal(408, "RequestTimeout", str(error)) from None
    except Left:
        raise Refusal(400, "IncompleteBody", "The connection ended before the body did.") from None
    await run_sync(hooks.stored, stored)
    return Response(status_code=200, headers={"ETag": f'"{stored.etag}"'})


async def _ask_whether_allowed(hooks: UploadHooks, key: str) -> None:
    if not await run_sync(hooks.may_put, key):
        raise Refusal(409, "OperationAborted", "The job has been started, or is gone: its input cannot be replaced any more.")


def _announced_bytes(headers: Headers) -> int:
    """0 for a chunked body. The server has checked the header's form, and holds the body to it."""
    return int(headers.get("content-length", 0))


async def _receive(body: Body, incoming: Incoming) -> None:
    """The body into the file. Memory holds _WRITTEN_AT_ONCE and what the server reads ahead."""
    waiting = bytearray()
    async for block in body.blocks():
        waiting += block
        if len(waiting) >= _WRITTEN_AT_ONCE:
            await run_sync(incoming.write, bytes(waiting))
            waiting.clear()
    await run_sync(incoming.write, bytes(waiting))


def _finish(store: LocalStore, key: str, incoming: Incoming, content_md5: str | None) -> StoredObject:
    if content_md5 is not None:
        try:
            wanted = base64.b64decode(content_md5, validate=True).hex()
        except (binascii.Error, ValueError):
            raise Refusal(400, "InvalidDigest", "Content-MD5 is not the base64 of an MD5.") from None
        if wanted != incoming.finish():
            raise Refusal(400, "BadDigest", "What came is not what Content-MD5 announced; send it again.")
    return store.put(key, incoming)


# --- GET ---


def _get(store: LocalStore, grant: Grant) -> Response:
    """The whole file or the ranges that are asked for, always as a download."""
    try:
        path = store.path(grant.key)
        found = path.stat()
    except (NoSuchObject, FileNotFoundError):
        raise Refusal(404, "NoSuchKey", "Nothing is stored here; it may not be uploaded yet, or be deleted.") from None
    kind = _KINDS.get(PurePosixPath(grant.file_name).suffix.lower(), "application/octet-stream")
    headers = {**_SAFE_HEADERS, "ETag": f'"{path.name.partition("-")[2]}"'}
    return FileResponse(path, headers=headers, media_type=kind, filename=_printable(grant.file_name), stat_result=found)


def _printable(file_name: str) -> str:
    """A name that ends no header and no folder."""
    return "".join("_" if letter in '/\\"' or not letter.isprintable() else letter for letter in file_name) or "download"


# --- errors ---


def _told(refusal: Refusal) -> Response:
    content = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message>"
        f"<RequestId>{uuid.uuid4().hex}</RequestId></Error>"
    )
    return Response(content, refusal.status, {"Connection": "close"}, media_type="application/xml")
