"""Idempotency-Key: a POST that comes twice is answered twice, and done once."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from tempfile import SpooledTemporaryFile
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database.tables import IdempotencyRecord
from service.keys import LONGEST_IDEMPOTENCY_KEY, key_in
from service.problems import Problem, problem_response
from service.services import Services

KEPT_SECONDS = 24 * 3600.0
ABANDONED_SECONDS = 60.0  # a request with no answer after this was interrupted: the next one is done (and jobs are made once all the same)
IN_MEMORY = 2**20  # bytes of a body
LARGEST_ANSWER = 2**20  # a longer one is not kept, nor one that is no text

log = logging.getLogger("service.idempotency")


class IdempotentRequests:
    """Keeps the answers to POSTs with an Idempotency-Key for a day, by API key."""

    def __init__(self, app: ASGIApp, services: Services):
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" and scope["method"] == "POST" else Headers()
        key = headers.get("idempotency-key", "")
        if not 0 < len(key) <= LONGEST_IDEMPOTENCY_KEY or "authorization" not in headers:
            await self._app(scope, receive, send)
            return
        caller = await run_in_threadpool(self._services.keys.check, key_in(headers["authorization"]))
        if caller is None:
            await self._app(scope, receive, send)
            return
        with SpooledTemporaryFile(max_size=IN_MEMORY) as body:
            digest = await _read_body(scope, receive, body)
            if digest is not None:
                await self._answer(caller.key_id, key, digest, _Exchange(self._app, scope, _again(body, receive), send))

    async def _answer(self, key_id: str, key: str, digest: str, exchange: _Exchange) -> None:
        earlier = await run_in_threadpool(self._begin, key_id, key, digest)
        if earlier is None:
            try:
                await exchange.run(lambda: self._keep(key_id, key, exchange))
            finally:
                if not exchange.is_settled:
                    await run_in_threadpool(self._end, key_id, key, exchange)
        elif earlier.request_digest != digest:
            detail = "this Idempotency-Key was sent with another request; take a new one for each request"
            await exchange.tell(Problem(422, "Idempotency-Key used before", detail))
        elif earlier.status is None:
            await exchange.tell(Problem(409, "Request in progress", "the same request is being worked on; ask again", retry_after=1))
        else:
            answer = Response(earlier.body, earlier.status, {"Idempotent-Replayed": "true"}, earlier.content_type)
            await exchange.reply(answer)

    async def _keep(self, key_id: str, key: str, exchange: _Exchange) -> None:
        """What has been done is answered, also where the database cannot keep the answer."""
        try:
            await run_in_threadpool(self._end, key_id, key, exchange)
        except SQLAlchemyError:
            log.exception("the answer to an Idempotency-Key could not be kept: the same request is 409 for a while")

    def _begin(self, key_id: str, key: str, digest: str) -> IdempotencyRecord | None:
        """The record of an earlier request; None: this is the first one, and has its record now."""
        now = time.time()
        mine = (IdempotencyRecord.key_id == key_id, IdempotencyRecord.idempotency_key == key)
        old = (IdempotencyRecord.created_at < now - KEPT_SECONDS) | (
            IdempotencyRecord.status.is_(None) & (IdempotencyRecord.created_at < now - ABANDONED_SECONDS)
        )
        with self._services.database.writing() as session:
            session.execute(delete(IdempotencyRecord).where(*mine, old))
            values = {"key_id": key_id, "idempotency_key": key, "request_digest": digest, "created_at": now}
            insert = self._services.database.insert(IdempotencyRecord).values(**values).on_conflict_do_nothing()
            earlier = None
            while earlier is None:  # the earlier one may be forgotten between the two
                if session.scalar(insert.returning(IdempotencyRecord.key_id)) is not None:
                    return None
                earlier = session.scalar(select(IdempotencyRecord).where(*mine))
            return earlier

    def _end(self, key_id: str, key: str, exchange: _Exchange) -> None:
        """Keep the answer; where there is none that can be kept, forget the request: it may come again."""
        with self._services.database.writing() as session:
            record = session.get(IdempotencyRecord, (key_id, key))
            if record is None:
                return
            if exchange.status is None or exchange.status >= 500 or exchange.status == 429 or exchange.text is None or exchange.is_secret:
                session.delete(record)
            else:
                record.status, record.body, record.content_type = exchange.status, exchange.text, exchange.content_type


class _Exchange:
    """A request on its way through the application; afterwards, what was answered."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send):
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self.status: int | None = None
        self.content_type: str | None = None
        self.is_secret = False  # such as a new API key, which is shown once and stored nowhere
        self._body = b""
        self._is_complete = False
        self.is_settled = False  # the answer was whole, and `run` has said so

    async def run(self, when_whole: Callable[[], Awaitable[None]]) -> None:
        """`when_whole` is awaited when the whole answer is known, before the client has the last of it: it may ask again at once."""

        async def noting(message: Message) -> None:
            self._note(message)
            if self._is_complete and not self.is_settled:
                await when_whole()
                self.is_settled = True
            await self._send(message)

        await self._app(self._scope, self._receive, noting)

    async def reply(self, response: Response) -> None:
        await response(self._scope, self._receive, self._send)

    async def tell(self, problem: Problem) -> None:
        await self.reply(problem_response(problem))

    @property
    def text(self) -> str | None:
        if not self._is_complete or len(self._body) > LARGEST_ANSWER:
            return None
        try:
            return self._body.decode()
        except UnicodeDecodeError:
            return None

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = Headers(raw=message["headers"])
            self.content_type = headers.get("content-type")
            self.is_secret = "no-store" in headers.get("cache-control", "")
        elif message["type"] == "http.response.body":
            if len(self._body) <= LARGEST_ANSWER:
                self._body += message.get("body", b"")
            self._is_complete = not message.get("more_body", False)


async def _read_body(scope: Scope, receive: Receive, body: Any) -> str | None:
    """Reads the whole body into a file; the digest of the request. None: the client has gone."""
    digest = hashlib.sha256(f"{scope['method']} {scope['path']}?".encode() + scope["query_string"] + b"\n")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        digest.update(message.get("body", b""))
        body.write(message.get("body", b""))
        if not message.get("more_body", False):
            body.seek(0)
            return digest.hexdigest()


def _again(body: Any, receive: Receive) -> Receive:
    """Receives the body from the file, then whatever else there is to receive."""
    is_read = False

    async def from_file() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        chunk = body.read(IN_MEMORY)
        is_read = len(chunk) < IN_MEMORY
        return {"type": "http.request", "body": chunk, "more_body": not is_read}

    return from_file
