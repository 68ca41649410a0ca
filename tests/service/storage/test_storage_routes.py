"""Uploads and downloads over the wire, to a real server: what is allowed, what is refused and how, what a cut connection leaves."""
from __future__ import annotations

import base64
import hashlib
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from service.storage import space
from service.storage.body import Body, Patience, TooSlow
from service.storage.local import LocalStore
from service.storage.routes import UploadHooks, storage_router
from service.storage.store import StoredObject
from tests.service.waiting import wait_until

SECRET = bytes(range(32))
KEY = "jobs/1/input.zip"


@dataclass
class Service:
    """The routes behind a real server, and what the hooks of the service said and heard."""

    store: LocalStore
    folder: Path
    port: int
    now: list[float]
    allowed: dict[str, bool] = field(default_factory=dict)
    answers: list[bool] = field(default_factory=list)  # for the next questions; then `allowed`
    stored: list[StoredObject] = field(default_factory=list)
    server: uvicorn.Server | None = None

    def put_url(self, max_bytes: int = 1 << 20, seconds: int = 60) -> str:
        return self.store.put_url(KEY, max_bytes=max_bytes, seconds=seconds)

    def works(self) -> bool:
        """Whether a request is not over yet."""
        assert self.server is not None
        return bool(self.server.server_state.tasks)

    def files(self) -> list[str]:
        return [path.name for path in self.folder.rglob("*") if path.is_file()]

    def say(self, text: bytes) -> socket.socket:
        """A connection on which so much has been said."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(text)
        return connection

    def head(self, method: str, url: str, *lines: str) -> bytes:
        path = httpx.URL(url).raw_path.decode()
        return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Its parameter: how many seconds a client may stall."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    now = [1000.0]
    store = LocalStore(tmp_path / "storage", f"http://127.0.0.1:{port}", SECRET, reserve_bytes=0, clock=lambda: now[0])
    service = Service(store, tmp_path / "storage", port, now)

    def may_put(key: str) -> bool:
        return service.answers.pop(0) if service.answers else service.allowed.get(key, True)

    app = FastAPI()
    app.include_router(storage_router(store, UploadHooks(may_put, service.stored.append), Patience(getattr(request, "param", 30))))
    service.server = server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", http="h11"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield service
    server.should_exit = True
    thread.join(30)
    listener.close()


def wait_for(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    while block := connection.recv(65536):
        found += block
    return found


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status and response.headers["content-type"] == "application/xml"
    error = ElementTree.fromstring(response.text)
    assert error.tag == "Error" and error.findtext("Code") == code and error.findtext("RequestId")
    return error.findtext("Message") or ""


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/zip", "text/plain", "x", None])
def test_any_content_type_is_stored(service: Service, kind: str | None) -> None:
    response = httpx.put(service.put_url(), content=b"content", headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 200 and response.content == b""
    assert response.headers["etag"] == f'"{hashlib.md5(b"content").hexdigest()}"'
    assert service.stored == [StoredObject(KEY, 7, hashlib.md5(b"content").hexdigest())]
    assert service.store.path(KEY).read_bytes() == b"content"


def test_chunked_bodies(service: Service) -> None:
    assert httpx.put(service.put_url(), content=iter([b"one", b"two" * 500_000 + b"end"][:1] + [b"two"])).status_code == 200
    assert service.store.path(KEY).read_bytes() == b"onetwo"


def test_a_client_that_waits_for_100_continue(service: Service) -> None:
    head = service.head("PUT", service.put_url(), "Content-Length: 7", "Expect: 100-continue", "Connection: close")
    with service.say(head) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"content")
        assert wait_for(connection).startswith(b"HTTP/1.1 200 ")
    assert service.store.path(KEY).read_bytes() == b"content"


@pytest.mark.parametrize(("url", "code"), [("expired", b"AccessDenied"), ("long", b"EntityTooLarge"), ("started", b"OperationAborted")])
def test_a_client_that_waits_is_refused_before_it_sends(service: Service, url: str, code: bytes) -> None:
    target = service.put_url(max_bytes=6 if url == "long" else 100)
    service.now[0] += 60 if url == "expired" else 0
    service.allowed[KEY] = url != "started"
    with service.say(service.head("PUT", target, "Content-Length: 7", "Expect: 100-continue")) as connection:
        answer = wait_for(connection)
    assert code in answer and b" 100 " not in answer and service.files() == []


def test_the_second_upload_counts_until_the_job_starts(service: Service) -> None:
    url = service.put_url()
    for content in (b"first", b"second"):
        assert httpx.put(url, content=content).status_code == 200
    assert service.store.path(KEY).read_bytes() == b"second"
    service.allowed[KEY] = False
    assert "has been started" in refusal(httpx.put(url, content=b"third"), 409, "OperationAborted")
    service.answers[:] = [True, False]  # it starts while the upload runs
    refusal(httpx.put(url, content=b"fourth"), 409, "OperationAborted")
    assert service.store.path(KEY).read_bytes() == b"second" and len(service.files()) == 1 and len(service.stored) == 2


def test_wrong_methods_tokens_and_times_are_refused(service: Service) -> None:
    put, get = service.put_url(), service.store.get_url(KEY, seconds=60)
    for method, url in (("GET", put), ("HEAD", put), ("DELETE", put), ("POST", put), ("PUT", get), ("DELETE", get), ("PATCH", get)):
        response = httpx.request(method, url, content=b"x" if method in ("PUT", "POST", "PATCH") else None)
        assert response.status_code == 403
        if method != "HEAD":
            refusal(response, 403, "SignatureDoesNotMatch")
    for url in (put[:-1], put[:-1] + ("A" if put[-1] != "A" else "B"), put.replace("/u/", "/u/x"), put.rpartition("/")[0] + "/nonsense"):
        refusal(httpx.put(url, content=b"x"), 403, "SignatureDoesNotMatch")
    service.now[0] += 60
    assert refusal(httpx.put(put, content=b"x"), 403, "AccessDenied") == "Request has expired"
    refusal(httpx.get(get), 403, "AccessDenied")
    assert service.files() == [] and service.stored == []


def test_too_long_a_body_is_refused_whether_it_is_announced_or_not(service: Service) -> None:
    url = service.put_url(max_bytes=1000)
    refusal(httpx.put(url, content=bytes(1001)), 413, "EntityTooLarge")
    refusal(httpx.put(url, content=iter([bytes(500), bytes(501)])), 413, "EntityTooLarge")
    assert service.files() == [] and httpx.put(url, content=bytes(1000)).status_code == 200


@pytest.mark.parametrize("reason", ["too long", "changed", "started"])
def test_a_large_upload_that_is_refused_hears_why(service: Service, reason: str) -> None:
    """As many clients do, it writes all before it reads: it must not find the connection reset by then."""
    url = service.put_url(max_bytes=1000 if reason == "too long" else 1 << 30)
    service.allowed[KEY] = reason != "started"
    with service.say(service.head("PUT", url[:-2] if reason == "changed" else url, "Content-Length: 20000000")) as connection:
        for _ in range(20):
            connection.sendall(bytes(1_000_000))
        answer = wait_for(connection)
    assert answer.startswith(b"HTTP/1.1 4") and b"</Error>" in answer and service.files() == []


def test_a_client_that_trickles_is_dropped() -> None:
    """By its mean, once the first while is over; one that is done by then is not."""

    async def blocks(sizes: list[int]) -> int:
        messages = [{"type": "http.request", "body": bytes(size), "more_body": number < len(sizes)} for number, size in enumerate(sizes, 1)]

        async def receive() -> dict[str, object]:
            return messages.pop(0)

        body = Body(Request({"type": "http", "method": "PUT", "headers": []}, receive), Patience(grace_seconds=0, least_bytes_per_second=1e12))
        return sum([len(block) async for block in body.blocks()])

    assert anyio.run(blocks, [10]) == 10
    with pytest.raises(TooSlow, match="bytes a second"):
        anyio.run(blocks, [10, 10])


def test_a_full_disk(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: Usage)
    refusal(httpx.put(service.put_url(), content=bytes(51)), 507, "InsufficientStorage")
    assert service.files() == [] and httpx.put(service.put_url(), content=bytes(50)).status_code == 200


def test_content_md5_is_checked(service: Service) -> None:
    for md5, code in ((base64.b64encode(hashlib.md5(b"other").digest()).decode(), "BadDigest"), ("?", "InvalidDigest")):
        refusal(httpx.put(service.put_url(), content=b"content", headers={"Content-MD5": md5}), 400, code)
    assert service.files() == []
    right = base64.b64encode(hashlib.md5(b"content").digest()).decode()
    assert httpx.put(service.put_url(), content=b"content", headers={"Content-MD5": right}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_connection_leaves_nothing(service: Service, chunked: bool) -> None:
    url = service.put_url()
    httpx.put(url, content=b"first")
    lines = ["Transfer-Encoding: chunked"] if chunked else ["Content-Length: 1000"]
    begun = b"64\r\n" + bytes(100) + b"\r\n" if chunked else bytes(100)
    connection = service.say(service.head("PUT", url, *lines) + begun)
    connection.shutdown(socket.SHUT_WR)
    wait_for(connection)
    connection.close()
    wait_until(lambda: not service.works())  # the server hears of the end a moment after it has closed
    assert service.store.path(KEY).read_bytes() == b"first" and len(service.files()) == 1 and len(service.stored) == 1


@pytest.mark.parametrize("service", [0.5], indirect=True)
def test_a_client_that_stalls_is_dropped(service: Service) -> None:
    with service.say(service.head("PUT", service.put_url(), "Content-Length: 1000") + bytes(100)) as connection:
        answer = wait_for(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"RequestTimeout" in answer and service.files() == []


def test_memory_stays_flat(service: Service) -> None:
    """32 MiB come in; neither the parts of the service nor the server may hold a tenth of it."""
    block = bytes(1 << 16)
    httpx.put(service.put_url(), content=b"warm")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    assert httpx.put(service.put_url(max_bytes=1 << 26), content=(block for _ in range(512)), timeout=60).status_code == 200
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert service.stored[-1].size == 32 << 20 and peak < 6 << 20


# --- downloads ---


@pytest.fixture
def download(service: Service) -> str:
    httpx.put(service.put_url(), content=bytes(range(100)))
    return service.store.get_url(KEY, seconds=60, file_name="Frösche, die.png")


def test_a_download_is_a_file_and_nothing_else(service: Service, download: str) -> None:
    response = httpx.get(download)
    assert response.status_code == 200 and response.content == bytes(range(100))
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''Fr%C3%B6sche%2C%20die.png"
    assert response.headers["x-content-type-options"] == "nosniff" and "sandbox" in response.headers["content-security-policy"]
    assert response.headers["content-type"] == "image/png" and response.headers["etag"] == f'"{hashlib.md5(bytes(range(100))).hexdigest()}"'
    head = httpx.head(download)
    assert head.status_code == 200 and head.headers["content-length"] == "100" and head.content == b""


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a", 'a".png\r\nX-Bad: 1', "../a.html"])
def test_names_choose_no_dangerous_type_and_end_no_header(service: Service, download: str, name: str) -> None:
    response = httpx.get(service.store.get_url(KEY, seconds=60, file_name=name))
    assert response.headers["content-type"] == "application/octet-stream" and "x-bad" not in response.headers
    assert "/" not in response.headers["content-disposition"].replace("%2F", "/")


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=10-19", 206, bytes(range(10, 20))), ("bytes=90-", 206, bytes(range(90, 100))), ("bytes=-5", 206, bytes(range(95, 100))),
        ("bytes=90-500", 206, bytes(range(90, 100))), ("bytes=100-", 416, None), ("letters=1-2", 400, None), ("bytes=20-10", 400, None),
    ],
)  # fmt: skip
def test_ranges(service: Service, download: str, asked: str, status: int, content: bytes | None) -> None:
    response = httpx.get(download, headers={"Range": asked})
    assert response.status_code == status and (content is None or response.content == content)
    if status == 206:
        etag = response.headers["etag"]
        assert httpx.get(download, headers={"Range": asked, "If-Range": etag}).status_code == 206
        assert httpx.get(download, headers={"Range": asked, "If-Range": '"old"'}).content == bytes(range(100))


def test_what_is_not_there_is_told(service: Service) -> None:
    refusal(httpx.get(service.store.get_url(KEY, seconds=60)), 404, "NoSuchKey")
