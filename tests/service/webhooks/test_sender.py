"""Webhooks arrive: signed so that independent libraries accept them, in order, again until they do, and no longer than promised."""
from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.database.engine import Database
from service.database.tables import WebhookMessage, WebhookSecret
from service.keys import Keys
from service.webhooks.deliveries import Deliveries
from service.webhooks.outbox import COMPLETED, LARGEST_BODY, LOGS, Outbox
from service.webhooks.secrets import OVERLAP_SECONDS, WebhookSecrets
from service.webhooks.sender import LEASE_SECONDS, PAUSES, Answer, Sender


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Receiver:
    """Answers what it is told to; keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.got: list[tuple[str, str, Mapping[str, str]]] = []

    def __call__(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        self.got.append((url, body, headers))
        return self.answers.pop(0) if self.answers else Answer(200)


class Post:
    """An office with one receiver."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock, self.receiver = database, Clock(), Receiver()
        self.project = Keys(database).project("default")
        self.outbox, self.secrets = Outbox(self.clock), WebhookSecrets(database, self.clock)
        self.sender = Sender(database, self.secrets, self.receiver, self.clock, draw=lambda: 0.5)

    def add(self, event: str = COMPLETED, subject: str = "job", **body: Any) -> None:
        with self.database.writing() as session:
            url = "https://example.org/hook?a=1"
            self.outbox.add(session, project_id=self.project, subject_id=subject, url=url, event=event, body=body)

    def rows(self) -> list[WebhookMessage]:
        with self.database.reading() as session:
            return list(session.scalars(select(WebhookMessage).order_by(WebhookMessage.number)))


@pytest.fixture
def post(database: Database) -> Post:
    return Post(database)


def test_a_library_of_others_accepts_the_signature(post: Post) -> None:
    post.add(id="x", text="é")
    assert post.sender.send_next()
    (url, body, headers), secret = post.receiver.got[0], post.secrets.active(post.project)[0]
    assert url == "https://example.org/hook?a=1"
    assert secret.count("_") == 1
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-timestamp"] == "1700000000"
    assert not post.sender.send_next()


def test_the_clock_of_a_verifier_is_met(post: Post) -> None:
    post.clock.now = time.time()
    post.add(id="x")
    post.sender.send_next()
    _, body, headers = post.receiver.got[0]
    assert Webhook(post.secrets.active(post.project)[0]).verify(body, dict(headers)) == {"id": "x"}
    with pytest.raises(WebhookVerificationError):
        Webhook(post.secrets.rotate(post.project)).verify(body, dict(headers))


def test_both_secrets_count_while_they_are_rotated(post: Post) -> None:
    old = post.secrets.active(post.project)[0]
    new = post.secrets.rotate(post.project)
    assert post.secrets.active(post.project) == [new, old]
    post.add()
    post.sender.send_next()
    assert len(post.receiver.got[0][2]["webhook-signature"].split(" ")) == 2
    post.clock.now += OVERLAP_SECONDS + 1
    assert post.secrets.active(post.project) == [new]
    newest = post.secrets.rotate(post.project)
    assert post.secrets.active(post.project) == [newest, new]


def test_secrets_are_made_once_and_per_project(post: Post, database: Database) -> None:
    first = post.secrets.active(post.project)
    assert post.secrets.active(post.project) == first
    other = Keys(database).project("other")
    assert post.secrets.active(other) != first
    with database.reading() as session:
        assert len(session.scalars(select(WebhookSecret)).all()) == 2


def test_it_is_tried_eight_times_with_one_id_and_fresh_signatures(post: Post) -> None:
    post.receiver.answers = [Answer(500)] * 8
    post.add()
    begun, times = post.clock.now, []
    for pause in (0.0, *PAUSES):
        post.clock.now += pause - 1 if pause else 0.0
        assert pause == 0 or not post.sender.send_next()
        post.clock.now += 1 if pause else 0.0
        assert post.sender.send_next()
        times.append(post.clock.now - begun)
    post.clock.now += 10**6
    assert not post.sender.send_next()
    assert times == [0, 5, 35, 335, 2135, 9335, 30935, 74135]
    assert len({headers["webhook-id"] for _, _, headers in post.receiver.got}) == 1
    assert len({headers["webhook-signature"] for _, _, headers in post.receiver.got}) == 8
    (row,) = post.rows()
    assert (row.attempts, row.next_attempt_at, row.delivered_at, row.last_status) == (8, None, None, 500)


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_pauses_are_a_fifth_shorter_or_longer_at_most(draw: float, post: Post) -> None:
    sender = Sender(post.database, post.secrets, post.receiver, post.clock, draw=lambda: draw)
    post.receiver.answers = [Answer(503)]
    post.add()
    sender.send_next()
    assert post.rows()[0].next_attempt_at == pytest.approx(post.clock.now + 5 * (0.8 + 0.4 * draw))


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (Answer(204), None), (Answer(400), None), (Answer(410), None), (Answer(301), None), (Answer(404), None),
        (Answer(408), 5), (Answer(409), 5), (Answer(425), 5), (Answer(429), 5), (Answer(599), 5), (Answer(None, "no answer"), 5),
        (Answer(429, retry_after="120"), 120), (Answer(503, retry_after="99999"), 3600), (Answer(503, retry_after="soon"), 5),
        (Answer(503, retry_after="Tue, 14 Nov 2023 22:15:20 GMT"), 120),
    ],
)  # fmt: skip
def test_what_an_answer_leads_to(answer: Answer, pause: float | None, post: Post) -> None:
    post.receiver.answers = [answer]
    post.add()
    post.sender.send_next()
    (row,) = post.rows()
    assert row.next_attempt_at == (None if pause is None else post.clock.now + pause)
    assert (row.delivered_at is not None) == (answer.status == 204)
    assert row.last_error == answer.error


def test_what_is_not_final_is_tried_once(post: Post) -> None:
    post.receiver.answers = [Answer(500)]
    post.add(LOGS)
    post.add(COMPLETED)
    assert [post.sender.send_next() for _ in range(3)] == [True, True, False]
    assert [row.delivered_at is not None for row in post.rows()] == [False, True]


def test_messages_of_a_job_wait_for_each_other_and_for_no_other_job(post: Post) -> None:
    post.receiver.answers = [Answer(500)]
    post.add(subject="a", n=1)
    post.add(subject="a", n=2)
    post.add(subject="b", n=3)
    while post.sender.send_next():
        pass
    post.clock.now += 10
    while post.sender.send_next():
        pass
    assert [body for _, body, _ in post.receiver.got] == ['{"n": 1}', '{"n": 3}', '{"n": 1}', '{"n": 2}']


def test_a_message_is_sent_by_one_of_two_services(post: Post) -> None:
    post.add()
    taken = post.sender._take()
    assert taken is not None
    assert not Sender(post.database, post.secrets, post.receiver, post.clock).send_next()
    post.clock.now += LEASE_SECONDS + 1
    assert post.sender.send_next()


def test_a_person_can_try_again(post: Post) -> None:
    post.receiver.answers = [Answer(410)]
    post.add()
    post.sender.send_next()
    (row,) = post.rows()
    deliveries = Deliveries(post.database, post.clock)
    assert not deliveries.retry("other", "job", row.id)
    assert not deliveries.retry(post.project, "another job", row.id)
    assert deliveries.retry(post.project, "job", row.id)
    assert post.sender.send_next()
    assert post.rows()[0].delivered_at == post.clock.now


def test_a_body_is_never_longer_than_receivers_take(post: Post) -> None:
    post.add(id="x", logs="x" * LARGEST_BODY)
    assert post.rows()[0].body == '{"id": "x", "logs": null, "input": null}'


class Killed(BaseException):
    """kill -9 at this place."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.sampled_from(["no", "before", "after"]), max_size=12), failures=st.integers(0, 6))
def test_a_service_that_is_killed_between_attempts_loses_nothing(kills: list[str], failures: int, post: Post) -> None:
    """Whenever it dies, before it asks the receiver or before it notes the answer: all arrives, in order, under the same ids."""
    with post.database.writing() as session:
        session.execute(delete(WebhookMessage))
    post.receiver.got.clear()
    post.receiver.answers = [Answer(500)] * failures
    plan = iter(kills)

    def deadly(url: str, body: str, headers: Mapping[str, str]) -> Answer:
        when = next(plan, "no")
        if when == "before":
            raise Killed
        answer = post.receiver(url, body, headers)
        if when == "after":
            raise Killed
        return answer

    for number in range(2):
        post.add(COMPLETED, n=number)
    for _ in range(60):
        if all(row.delivered_at for row in post.rows()):
            break
        sender = Sender(post.database, post.secrets, deadly, post.clock, draw=lambda: 0.5)
        try:
            while sender.send_next():
                pass
        except Killed:
            pass
        post.clock.now += 50_000
    assert [row.delivered_at is not None for row in post.rows()] == [True, True]
    bodies = [body for _, body, _ in post.receiver.got]
    assert bodies == sorted(bodies)
    assert set(bodies) == {'{"n": 0}', '{"n": 1}'}
    assert len({headers["webhook-id"] for _, _, headers in post.receiver.got}) == 2
