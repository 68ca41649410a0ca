"""Sends what is in the outbox: each message until it arrives, those of one job in order, signed as Standard Webhooks are."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import aliased
from standardwebhooks.webhooks import Webhook

from service.database.engine import RETURNED, Database
from service.database.tables import WebhookMessage
from service.webhooks.secrets import WebhookSecrets

PAUSES = (5.0, 30.0, 300.0, 1800.0, 7200.0, 21600.0, 43200.0)  # seconds after the first attempt, the second ...: eight attempts
JITTER = 0.2
LONGEST_RETRY_AFTER = 3600.0
LEASE_SECONDS = 60.0  # much longer than an attempt takes: whoever holds a message for longer is dead
RETRIED = (408, 409, 425, 429)  # and 5xx
IDLE_SECONDS = 0.5
THREADS = 4  # so that one slow receiver holds up nobody else
USER_AGENT = "tadpole-webhooks"


@dataclass(frozen=True)
class Answer:
    """What came back: a status, or the reason why nothing did."""

    status: int | None
    error: str | None = None
    retry_after: str | None = None


Post = Callable[[str, str, Mapping[str, str]], Answer]  # url, body, headers
log = logging.getLogger("service.webhooks")


class Sender:
    """`send_next` does one attempt; `start` has all that come done in the background."""

    def __init__(
        self, database: Database, secrets: WebhookSecrets, post: Post,
        clock: Callable[[], float] = time.time, draw: Callable[[], float] = random.random,
    ):  # fmt: skip
        self._database, self._secrets, self._post = database, secrets, post
        self._clock, self._draw = clock, draw
        self._stopping = threading.Event()
        self._free = threading.Semaphore(THREADS)
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way is finished; the rest waits in the outbox for the next start."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        """One thread looks for messages, and hands each to a free one: looking is writing, which all would wait for."""
        with ThreadPoolExecutor(THREADS, "webhooks") as senders:
            while not self._stopping.is_set():
                self._free.acquire()
                message = self._look()
                if message is None:
                    self._free.release()
                    self._stopping.wait(IDLE_SECONDS)
                else:
                    senders.submit(self._send_and_free, message)

    def _look(self) -> WebhookMessage | None:
        try:
            return self._take()
        except Exception:  # the database is away: the messages are not
            log.exception("the webhooks that are due could not be asked for")
            return None

    def _send_and_free(self, message: WebhookMessage) -> None:
        try:
            self._send(message)
        except Exception:  # the message is sent again when its lease is over
            log.exception("webhook %s could not be sent or noted", message.id)
        finally:
            self._free.release()

    def send_next(self) -> bool:
        """One attempt with the message that is due for longest; False if none is."""
        message = self._take()
        if message is None:
            return False
        self._send(message)
        return True

    def _send(self, message: WebhookMessage) -> None:
        self._note(message, self._post(message.url, message.body, self._headers(message)))

    def _take(self) -> WebhookMessage | None:
        now = self._clock()
        due, earlier = aliased(WebhookMessage), aliased(WebhookMessage)
        waits = select(earlier.number).where(
            earlier.subject_id == due.subject_id, earlier.number < due.number, earlier.next_attempt_at.is_not(None)
        )
        candidate = (
            select(due.number)
            .where(due.next_attempt_at <= now, or_(due.lease_expires_at.is_(None), due.lease_expires_at < now), ~waits.exists())
            .order_by(due.next_attempt_at, due.number)
            .limit(1)
            .with_for_update(skip_locked=True, of=due)
        )
        free = or_(WebhookMessage.lease_expires_at.is_(None), WebhookMessage.lease_expires_at < now)
        taken = update(WebhookMessage).where(WebhookMessage.number == candidate.scalar_subquery(), free)
        with self._database.writing() as session:
            values = {"lease_expires_at": now + LEASE_SECONDS}
            return session.scalar(taken.values(**values).returning(WebhookMessage), execution_options=RETURNED)

    def _headers(self, message: WebhookMessage) -> dict[str, str]:
        """The id is the same in each attempt; time and signature are fresh. During a rotation there are two signatures."""
        now = datetime.fromtimestamp(int(self._clock()), timezone.utc)
        signatures = [Webhook(secret).sign(message.id, now, message.body) for secret in self._secrets.active(message.project_id)]
        return {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _note(self, message: WebhookMessage, answer: Answer) -> None:
        now = self._clock()
        attempts = message.attempts + 1
        values: dict[str, Any] = {"attempts": attempts, "lease_expires_at": None, "last_status": answer.status, "last_error": answer.error}
        if answer.status is not None and 200 <= answer.status < 300:
            values |= {"delivered_at": now, "next_attempt_at": None}
        else:
            values |= {"next_attempt_at": self._next_attempt(message, answer, attempts, now)}
        changed = update(WebhookMessage).where(WebhookMessage.number == message.number, WebhookMessage.attempts == message.attempts)
        with self._database.writing() as session:
            session.execute(changed.values(**values))

    def _next_attempt(self, message: WebhookMessage, answer: Answer, attempts: int, now: float) -> float | None:
        may_help = answer.status is None or answer.status in RETRIED or answer.status >= 500
        if not message.is_final or not may_help or attempts > len(PAUSES):
            return None
        pause = PAUSES[attempts - 1] * (1 + JITTER * (2 * self._draw() - 1))
        return now + max(pause, min(_seconds(answer.retry_after, now), LONGEST_RETRY_AFTER))


def _seconds(retry_after: str | None, now: float) -> float:
    """What a Retry-After header asks for: seconds, or a date."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (TypeError, ValueError):
        return 0.0
