"""Sessions of the page: a cookie that is given for an API key, and opens what the key opens, for as long as the key does."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy import delete

from service.database.engine import Database
from service.database.tables import PageSession
from service.identifiers import new_secret
from service.keys import Caller, Keys, slow_down
from service.problems import Problem
from service.throttle import Throttle

COOKIE = "tadpole_session"
SESSION_SECONDS = 7 * 24 * 3600.0
SIGN_INS_PER_MINUTE = 10  # by address, whether the key is right or not
TOKEN_LENGTH = 43  # characters of base 62: 32 bytes


@dataclass(frozen=True)
class Visit:
    """Somebody who is signed in. `csrf` stands in each of their forms, and opens nothing without the cookie."""

    caller: Caller
    token: str
    csrf: str

    def may(self, scope: str) -> bool:
        return scope in self.caller.scopes


class Sessions:
    """All sessions; of each, the database has the digest only."""

    def __init__(self, database: Database, keys: Keys, clock: Callable[[], float] = time.time):
        self._database, self._keys, self._clock = database, keys, clock
        self._sign_ins = Throttle(SIGN_INS_PER_MINUTE)

    def begin(self, key: str, address: str) -> str | None:
        """The cookie of a new session; None if the key opens nothing. A Problem (429) for who tries too often."""
        slow_down(self._sign_ins.take(address))
        caller = self._keys.check(key)
        if caller is None:
            return None
        token, now = new_secret(TOKEN_LENGTH), self._clock()
        with self._database.writing() as session:
            row = PageSession(digest=_digest(token), key_id=caller.key_id, created_at=now, expires_at=now + SESSION_SECONDS)
            session.add(row)
        return token

    def find(self, token: str) -> Visit | None:
        """Whose cookie this is; None once the session is over or its key opens nothing any more."""
        if not token:
            return None
        with self._database.reading() as session:
            found = session.get(PageSession, _digest(token))
        if found is None or found.expires_at <= self._clock():
            return None
        caller = self._keys.of_id(found.key_id)
        return None if caller is None else Visit(caller, token, csrf_token(token))

    def caller_of(self, request: Request) -> Caller | None:
        """Who calls the API from the page: what changes something needs the session's token in a header, which no other site can set."""
        visit = self.find(request.cookies.get(COOKIE, ""))
        if visit is not None and request.method not in ("GET", "HEAD"):
            check_csrf(visit.token, request.headers.get("x-csrf-token"))
        return None if visit is None else visit.caller

    def end(self, token: str) -> None:
        """Signed out: the cookie opens nothing any more, wherever a copy of it may be."""
        with self._database.writing() as session:
            session.execute(delete(PageSession).where(PageSession.digest == _digest(token)))


def csrf_token(token: str) -> str:
    """What the forms of a visitor with this cookie carry: another site can neither read nor guess it."""
    return hmac.new(token.encode(), b"forms of the page", hashlib.sha256).hexdigest()


def check_csrf(token: str, given: object) -> None:
    """A Problem (403) for a form that is not ours."""
    if not token or not isinstance(given, str) or not hmac.compare_digest(csrf_token(token).encode(), given.encode("utf-8", "replace")):
        raise Problem(403, "Form expired", "this form is not of your session; go back, load the page again, and send it once more")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
