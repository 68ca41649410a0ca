"""API keys: `tadpole_<id>_<secret>`, of which only the SHA-256 is stored; who calls, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from service.database.engine import Database
from service.database.tables import ApiKey, AuditEntry, Project
from service.identifiers import new_id, new_secret
from service.problems import Problem, not_found
from service.throttle import Throttle

SCOPES = ("read", "train", "admin")
KEY = re.compile(r"tadpole_([a-z0-9]{1,32})_[A-Za-z0-9]{1,128}")
FIRST_PROJECT = "default"
SECRET_LENGTH = 43  # characters of base 62: 32 bytes
LONGEST_IDEMPOTENCY_KEY = 255
KNOWN_SECONDS = 1.0
MOST_KNOWN = 10_000
USE_NOTED_AFTER = 60.0  # seconds: `last_used_at` is no more exact than this
ANONYMOUS_CALLS_PER_MINUTE = 60  # with wrong keys, by address


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `idempotency_key` is the request's own: what it creates is created once."""

    project_id: str
    key_id: str
    scopes: frozenset[str]
    idempotency_key: str | None = None
    is_noted: bool = True  # False: the use of this key is to be noted (`Keys.note_use`)

    def require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Problem(403, "Forbidden", f'this key may not do that: it lacks the scope "{scope}"')


class Keys:
    """The keys of all projects."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time):
        self._database, self._clock = database, clock
        self._known: dict[str, tuple[float, ApiKey]] = {}  # by id: keys, and when they were looked up

    def any_exist(self) -> bool:
        with self._database.reading() as session:
            return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None

    def project(self, name: str) -> str:
        """The id of the project of this name, made if there is none."""
        with self._database.writing() as session:
            row = {"id": new_id(), "name": name, "created_at": self._clock()}
            session.execute(self._database.insert(Project).values(**row).on_conflict_do_nothing())  # two services may begin at once
            return session.scalars(select(Project.id).where(Project.name == name)).one()

    def known_project(self, name: str) -> str:
        """The id of the project of this name; Problem if there is none."""
        with self._database.reading() as session:
            found = session.scalar(select(Project.id).where(Project.name == name))
        if found is None:
            raise not_found(f"project {name}")
        return found

    def project_name(self, project_id: str) -> str:
        with self._database.reading() as session:
            return session.scalars(select(Project.name).where(Project.id == project_id)).one()

    def create(self, project_id: str, name: str, scopes: Sequence[str] = SCOPES, expires_at: float | None = None) -> str:
        """A new key as text: nobody can ask for it again."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise Problem(422, "Unknown scope", f'there is no scope "{unknown[0]}"; write {", ".join(SCOPES)}', field="scopes")
        key_id = new_id(10)
        key = f"tadpole_{key_id}_{new_secret(SECRET_LENGTH)}"
        with self._database.writing() as session:
            session.add(
                ApiKey(
                    id=key_id, project_id=project_id, name=name, digest=_digest(key), scopes=list(scopes),
                    created_at=self._clock(), expires_at=expires_at,
                )
            )  # fmt: skip
            session.add(AuditEntry(time=self._clock(), project_id=project_id, action="key created", subject_id=key_id, details={}))
        return key

    def listed(self, project_id: str) -> Sequence[ApiKey]:
        with self._database.reading() as session:
            return session.scalars(select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.created_at)).all()

    def revoke(self, project_id: str, key_id: str) -> None:
        """From the next request on, the key opens nothing; where another process answers, KNOWN_SECONDS later."""
        with self._database.writing() as session:
            mine = (ApiKey.id == key_id, ApiKey.project_id == project_id)
            revoked = update(ApiKey).where(*mine, ApiKey.revoked_at.is_(None)).values(revoked_at=self._clock()).returning(ApiKey.id)
            key = session.scalar(revoked)
            if key is None and session.scalar(select(ApiKey.id).where(*mine)) is None:
                raise not_found(f"key {key_id}")
            session.add(AuditEntry(time=self._clock(), project_id=project_id, action="key revoked", subject_id=key_id, details={}))
        self._known.pop(key_id, None)

    def check(self, key: str) -> Caller | None:
        """Whose key this is, if it is one that opens anything now."""
        parts = KEY.fullmatch(key)
        if parts is None:
            return None
        found = self._find(parts[1])
        if found is None or not hmac.compare_digest(found.digest, _digest(key)):
            return None
        return self._opened(found)

    def of_id(self, key_id: str) -> Caller | None:
        """Whose key this is, for a session that it has begun; None once the key opens nothing any more."""
        found = self._find(key_id)
        return None if found is None else self._opened(found)

    def _find(self, key_id: str) -> ApiKey | None:
        """Looked up once a second: a client that polls asks for its key as often as for its job."""
        now = self._clock()
        looked_up, found = self._known.get(key_id, (float("-inf"), None))
        if found is None or not 0 <= now - looked_up < KNOWN_SECONDS:
            with self._database.reading() as session:
                found = session.get(ApiKey, key_id)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            if found is not None:
                self._known[key_id] = (now, found)
        return found

    def _opened(self, found: ApiKey) -> Caller | None:
        now = self._clock()
        if found.revoked_at is not None or (found.expires_at is not None and found.expires_at <= now):
            return None
        is_noted = found.last_used_at is not None and now - found.last_used_at <= USE_NOTED_AFTER
        return Caller(found.project_id, found.id, frozenset(found.scopes), is_noted=is_noted)

    def note_use(self, caller: Caller) -> None:
        """That the key was used now; apart from asking for it, as writing may have to wait."""
        with suppress(OperationalError), self._database.writing() as session:  # a disk that is full locks nobody out
            session.execute(update(ApiKey).where(ApiKey.id == caller.key_id).values(last_used_at=self._clock()))
        self._known.pop(caller.key_id, None)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key_in(header: str) -> str:
    """The key in an Authorization header: `Bearer K`, `Token K` or `K`."""
    kind, _, rest = header.strip().partition(" ")
    return rest.strip() if rest and kind.lower() in ("bearer", "token") else header.strip()


@dataclass
class Door:
    """Lets requests in: by key, no faster than allowed."""

    keys: Keys
    creates: Throttle
    calls: Throttle
    strangers: Throttle

    def open(self, request: Request) -> Caller:
        header = request.headers.get("authorization", "")
        address = request.client.host if request.client else ""
        slow_down(self.strangers.wait(address))
        caller = self.keys.check(key_in(header)) if header else None
        if caller is None:
            self.strangers.take(address)
            reason = "this API key is unknown, expired or revoked" if header else "send your API key as Authorization: Bearer KEY"
            raise Problem(401, "Unauthenticated", reason)
        self.pace(caller, request.method)
        written = request.headers.get("idempotency-key")
        if written is not None and not 0 < len(written) <= LONGEST_IDEMPOTENCY_KEY:
            raise Problem(400, "Bad Idempotency-Key", f"an Idempotency-Key has 1 to {LONGEST_IDEMPOTENCY_KEY} characters")
        own = None if written is None else f"{caller.key_id}:{written}"  # two clients of a project may think of the same
        return replace(caller, idempotency_key=own)

    def pace(self, caller: Caller, method: str) -> None:
        """429 if this key asks faster than allowed."""
        slow_down((self.creates if method == "POST" else self.calls).take(caller.key_id))


def slow_down(seconds: float) -> None:
    if seconds > 0:
        detail = f"Request was throttled. Your rate limit resets in ~{max(1, round(seconds))}s."
        raise Problem(429, "Too many requests", detail, retry_after=seconds)


def caller(request: Request) -> Caller:
    """Who calls; 401 if nobody knows them. May the caller do it? `needs("train")`."""
    services = request.app.state.services
    door: Door = services.door
    visitor: Caller | None = None if "authorization" in request.headers else services.sessions.caller_of(request)
    if visitor is None:
        return door.open(request)
    door.pace(visitor, request.method)
    return visitor


def needs(scope: str) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has this scope.

    It asks the database on the event loop, and so do the views of a job's status: a row by its key comes sooner than a thread takes over.
    """

    async def dependency(request: Request) -> Caller:
        who = caller(request)
        who.require(scope)
        if not who.is_noted:
            await run_in_threadpool(request.app.state.services.keys.note_use, who)
        return who

    return dependency


Reader = Annotated[Caller, Depends(needs("read"))]
Trainer = Annotated[Caller, Depends(needs("train"))]
Admin = Annotated[Caller, Depends(needs("admin"))]
