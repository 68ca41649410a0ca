"""The body of a request as it comes in: how long a client may take for it, and what becomes of one that nobody wants."""
from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from fastapi import Request

_DRAINED_BYTES = 64 << 20
_DRAINED_SECONDS = 10


@dataclass(frozen=True)
class Patience:
    """How long a slow client may keep a connection."""

    idle_seconds: float = 30
    grace_seconds: float = 60  # after which the mean counts
    least_bytes_per_second: float = 1024


USUAL_PATIENCE = Patience()


class TooSlow(Exception):
    """The client stalls or trickles: one line."""


class Left(Exception):
    """The client is gone before the end."""


class Body:
    """To be read once, by blocks(); drain() throws away what is left."""

    def __init__(self, request: Request, patience: Patience):
        self._request, self._patience = request, patience
        self._is_over = False
        self._is_awaited = request.headers.get("expect", "").lower() != "100-continue"  # else nothing comes until we ask

    async def blocks(self) -> AsyncIterator[bytes]:
        """Raises TooSlow or Left."""
        self._is_awaited = True
        patience = self._patience
        start, received = anyio.current_time(), 0
        while not self._is_over:
            try:
                with anyio.fail_after(patience.idle_seconds):
                    block = await self._next()
            except TimeoutError:
                self._is_over = True
                raise TooSlow(f"Nothing was sent for {patience.idle_seconds:g} seconds.") from None
            received += len(block)
            seconds = anyio.current_time() - start
            if not self._is_over and seconds > patience.grace_seconds and received < seconds * patience.least_bytes_per_second:
                self._is_over = True
                raise TooSlow(f"Less than {patience.least_bytes_per_second:g} bytes a second were sent.")
            yield block

    async def _next(self) -> bytes:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            self._is_over = True
            raise Left
        self._is_over = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def drain(self) -> None:
        """Reads on for a while before a refusal is sent: a connection that is closed while a client still writes is reset, and
        many clients then never read the answer.
        """
        drained = 0
        with anyio.move_on_after(_DRAINED_SECONDS):
            while self._is_awaited and not self._is_over and drained < _DRAINED_BYTES:
                try:
                    drained += len(await self._next())
                except Left:
                    return
