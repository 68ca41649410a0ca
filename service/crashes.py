"""Our own mistakes: the log has what happened, the client hears only that it did, and its connection lives on."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, of_outage, problem_response

log = logging.getLogger("service")


class ToldCrashes:
    """500, or 503 where the database or the disk is to blame.

    Starlette's own handler for this raises the error again, after which the server closes a connection whose client,
    answered in full, may be sending its next request there.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or has_begun:  # only a closed connection tells of half an answer
                raise
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            problem = of_outage(error) or Problem(500, "Internal error", "the service made a mistake; its log says which")
            await problem_response(problem)(scope, receive, send)
