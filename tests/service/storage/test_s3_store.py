"""The store in a bucket, against a small server that answers like S3 and keeps what it was asked: what is sent, what is signed."""
from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from service.storage.s3 import Bucket, S3Store, bucket_of
from service.storage.store import NoSuchObject, StoredObject, TooLarge


class Objects(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Objects

    def _note(self) -> str:
        path = urlsplit(self.path).path
        self.server.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        return path

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        path = self._note()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.content[path] = data
        self._answer(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def do_GET(self) -> None:
        data = self.server.content.get(self._note())
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", Content_Type="application/xml")
        return self._answer(200, data, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.server.content.pop(self._note(), None)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Objects]:
    server = Objects()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(server: Objects) -> S3Store:
    return S3Store(Bucket("pictures", f"http://127.0.0.1:{server.server_port}", "eu-north-1", "key", "secret", "path", "tadpole/"))


def test_what_is_saved_can_be_read(store: S3Store, server: Objects, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    stored = store.save("jobs/1/output.zip", tmp_path / "a")
    assert stored == StoredObject("jobs/1/output.zip", 7, hashlib.md5(b"content").hexdigest()) == store.head("jobs/1/output.zip")
    assert server.content == {"/pictures/tadpole/jobs/1/output.zip": b"content"}
    with store.open("jobs/1/output.zip") as file:
        assert file.read() == b"content"
    store.download("jobs/1/output.zip", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    store.delete("jobs/1/output.zip")
    assert server.content == {}


def test_nothing_is_sent_that_older_servers_refuse(store: S3Store, server: Objects, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    store.save("a", tmp_path / "a")
    headers = next(headers for method, _, headers in server.asked if method == "PUT")
    assert not any("checksum" in name or "trailer" in name for name in headers) and "aws-chunked" not in headers.get("content-encoding", "")
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


def test_what_is_not_there_is_told(store: S3Store, tmp_path: Path) -> None:
    assert store.head("a") is None
    store.delete("a")
    for action in (store.open, lambda key: store.download(key, tmp_path / "a"), lambda key: store.uploaded(key, max_bytes=1)):
        with pytest.raises(NoSuchObject):
            action("a")
    assert list(tmp_path.iterdir()) == []


def test_a_put_url_signs_the_host_alone(store: S3Store, server: Objects) -> None:
    url = store.put_url("jobs/1/input.zip", max_bytes=10, seconds=900)
    query = parse_qs(urlsplit(url).query)
    assert urlsplit(url).path == "/pictures/tadpole/jobs/1/input.zip"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and query["X-Amz-Expires"] == ["900"] and query["X-Amz-SignedHeaders"] == ["host"]
    assert "/eu-north-1/s3/aws4_request" in query["X-Amz-Credential"][0] and "secret" not in url
    assert httpx.put(url, content=b"content", headers={"Content-Type": "application/zip"}).status_code == 200
    assert store.uploaded("jobs/1/input.zip", max_bytes=10).size == 7


def test_too_long_an_upload_is_found_afterwards(store: S3Store, server: Objects) -> None:
    httpx.put(store.put_url("a", max_bytes=6), content=b"content")
    with pytest.raises(TooLarge, match="6 bytes"):
        store.uploaded("a", max_bytes=6)
    assert server.content == {}


def test_a_get_url_gives_a_download_of_a_name(store: S3Store) -> None:
    query = parse_qs(urlsplit(store.get_url("files/1", seconds=60, file_name='Frö"sche.zip')).query)
    assert query["response-content-disposition"] == ["attachment; filename*=utf-8''Fr%C3%B6%22sche.zip"] and query["X-Amz-Expires"] == ["60"]


def test_other_addressing_and_durations(server: Objects) -> None:
    store = S3Store(Bucket("pictures", "https://s3.example", "eu-north-1", "key", "secret", "virtual"))
    assert store.put_url("a", max_bytes=1).startswith("https://pictures.s3.example/a?")
    with pytest.raises(ValueError, match="a URL lives"):
        store.put_url("a", max_bytes=1, seconds=7 * 86400 + 1)
    with pytest.raises(ValueError, match="a URL lives"):
        store.get_url("a", seconds=86401)
    with pytest.raises(ValueError, match="no key"):
        store.get_url("../a", seconds=1)


@pytest.mark.parametrize(
    ("store", "endpoint", "bucket"),
    [
        ("s3://b", None, Bucket("b")),
        ("s3://b/some/prefix/", None, Bucket("b", prefix="some/prefix/")),
        ("s3://b/p", "http://minio:9000", Bucket("b", "http://minio:9000", addressing="path", prefix="p/")),
    ],
)
def test_buckets_by_their_url(store: str, endpoint: str | None, bucket: Bucket) -> None:
    assert bucket_of(store, endpoint) == bucket


@pytest.mark.parametrize("store", ["", "s3://", "bucket", "gs://b", "s3:///p"])
def test_what_names_no_bucket(store: str) -> None:
    with pytest.raises(ValueError, match="names no bucket"):
        bucket_of(store, None)
