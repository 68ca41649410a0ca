"""Our own mistakes: the log has what happened, the client hears only that it did, and its connection lives on."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, of_outage, tell_what_is_raised

log = logging.getLogger("service")


class ToldCrashes:
    """500, or 503 where the database or the disk is to blame.

    Starlette's own handler for this raises the error again, after which the server closes a connection whose client,
    answered in full, may be sending its next request there.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        def problem_of(error: Exception) -> Problem:
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            return of_outage(error) or Problem(500, "Internal error", "the service made a mistake; its log says which")

        await tell_what_is_raised(self._app, scope, receive, send, problem_of)
