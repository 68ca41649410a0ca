"""What the command line does when the network or the service fails it: again, ever later, and one line in the end."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.cli.access import Access
from service.cli.remote import TRIES, Failed, Remote

ACCESS = Access("http://service.example", "tadpole_a_b")
Answer = httpx.Response | Exception


class Script:
    """Answers requests from a list, and remembers them."""

    def __init__(self, *answers: Answer):
        self.answers, self.seen, self.bodies, self.pauses = list(answers), [], [], []  # type: ignore[var-annotated]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        self.bodies.append(request.read())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def asked() -> Iterator[Callable[..., tuple[Remote, Script]]]:
    with contextlib.ExitStack() as stack:

        def make(*answers: Answer) -> tuple[Remote, Script]:
            script = Script(*answers)
            remote = stack.enter_context(Remote(ACCESS, httpx.MockTransport(script), script.pauses.append))
            return remote, script

        yield make


def broken() -> Exception:
    return httpx.ReadError("connection reset")


def test_a_post_is_tried_again_as_the_same_request(asked) -> None:
    remote, script = asked(broken(), httpx.Response(503), httpx.Response(200, json={"a": 1}))
    assert remote.post("/train", {"name": "x"}) == {"a": 1}
    assert len({request.headers["Idempotency-Key"] for request in script.seen}) == 1
    assert [json.loads(body) for body in script.bodies] == [{"name": "x"}] * 3
    assert script.pauses == [0.5, 1.0]
    assert {request.headers["Authorization"] for request in script.seen} == {"tadpole_a_b"}


def test_two_posts_are_two_requests(asked) -> None:
    remote, script = asked(httpx.Response(200, json={}), httpx.Response(200, json={}))
    remote.post("/train", {})
    remote.post("/train", {})
    assert len({request.headers["Idempotency-Key"] for request in script.seen}) == 2


@pytest.mark.parametrize(("told", "waited"), [("3", 3.0), ("900", 30.0), ("soon", 0.5), ("", 0.5)])
def test_it_waits_as_long_as_it_is_told_to(told: str, waited: float, asked) -> None:
    remote, script = asked(httpx.Response(429, headers={"Retry-After": told}), httpx.Response(200, json=[]))
    assert remote.get("/x") == [] and script.pauses == [waited]


def test_it_gives_up(asked) -> None:
    remote, script = asked(*[httpx.Response(503, json={"detail": "Base models\nunavailable"}) for _ in range(TRIES)])
    with pytest.raises(Failed, match="^Base models unavailable$") as failed:
        remote.get("/x")
    assert failed.value.status == 503 and len(script.pauses) == TRIES - 1
    remote, _ = asked(*[broken() for _ in range(TRIES)])
    with pytest.raises(Failed, match="broke off"):
        remote.get("/x")


def test_what_nobody_listens_to_is_not_tried_again(asked) -> None:
    remote, script = asked(httpx.ConnectError("refused"))
    with pytest.raises(Failed, match="no service answers at http://service.example"):
        remote.get("/x")
    assert script.pauses == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(422, json={"message": "name: too long", "detail": "other"}), "name: too long"),
        (httpx.Response(404, json={"title": "Not found"}), "Not found"),
        (httpx.Response(500, json=["?"]), "the server answers 500 Internal Server Error"),
        (httpx.Response(505, text="<html>"), "the server answers 505"),
        (httpx.Response(200, text="<html>"), "does not answer as the service does"),
    ],
)
def test_answers_that_are_no_success(answer: httpx.Response, said: str, asked) -> None:
    remote, _ = asked(answer)
    with pytest.raises(Failed) as failed:
        remote.get("/x")
    assert said in str(failed.value) and "\n" not in str(failed.value)


@pytest.fixture
def parcel(tmp_path: Path) -> Path:
    path = tmp_path / "parcel.zip"
    path.write_bytes(b"x" * 600_000)
    return path


def test_an_upload_without_the_key(asked, parcel: Path) -> None:
    remote, script = asked(httpx.Response(200))
    steps: list[int] = []
    remote.upload("https://bucket.example/u", parcel, "application/zip", steps.append)
    (request,) = script.seen
    assert request.method == "PUT" and "Authorization" not in request.headers
    assert (request.headers["Content-Length"], request.headers["Content-Type"]) == ("600000", "application/zip")
    assert "transfer-encoding" not in request.headers
    assert script.bodies == [parcel.read_bytes()] and sum(steps) == 600_000


def test_an_upload_that_breaks_off_is_sent_again(asked, parcel: Path) -> None:
    remote, script = asked(broken(), httpx.Response(200))
    steps: list[int] = []
    remote.upload("https://bucket.example/u", parcel, "application/zip", steps.append)
    assert script.bodies == [parcel.read_bytes()] * 2
    assert sum(steps) == 600_000  # the bar does not run over


def test_an_upload_whose_answer_was_lost_had_arrived(asked, parcel: Path) -> None:
    remote, _ = asked(broken(), httpx.Response(409, text="<Error/>"))
    remote.upload("https://bucket.example/u", parcel, "application/zip", lambda _count: None)
    remote, _ = asked(httpx.Response(409, text="<Error/>"))
    with pytest.raises(Failed, match="409"):
        remote.upload("https://bucket.example/u", parcel, "application/zip", lambda _count: None)


@contextlib.contextmanager
def silent(_size: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda _count: None


def test_a_download_that_breaks_off_leaves_nothing(asked, tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield b"half"
        raise broken()

    remote, script = asked(httpx.Response(200, content=half()))
    with pytest.raises(Failed, match="the download broke off"):
        remote.download("https://bucket.example/d", tmp_path / "model.zip", silent)
    assert list(tmp_path.iterdir()) == [] and "Authorization" not in script.seen[0].headers


def test_a_failed_download_keeps_what_was_there(asked, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"old")
    remote, _ = asked(httpx.Response(403, text="<Error/>"))
    with pytest.raises(Failed, match="403"):
        remote.download("https://bucket.example/d", tmp_path / "model.zip", silent)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
