"""The store in a bucket of OpenStack Swift, which checks signatures; and a whole training by the command line through it."""
from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from service.storage.s3 import Bucket, S3Store
from service.storage.store import NoSuchObject, TooLarge
from tests.service_real.real_service import BASE, RealService, archive_of_pictures, real_service, wait_for
from tests.service_real.swift_server import ACCESS_KEY, REGION, SECRET_KEY, Swift, swift_server

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"PK\x03\x04 pictures"


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    with swift_server(tmp_path_factory.mktemp("swift")) as swift:
        yield swift


@pytest.fixture
def bucket(swift: Swift, request: pytest.FixtureRequest) -> str:
    """A fresh one for each test."""
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    swift.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(swift: Swift, bucket: str) -> S3Store:
    return S3Store(Bucket(bucket, swift.endpoint, REGION, ACCESS_KEY, SECRET_KEY, "path", "tadpole/"))


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/zip", None])
def test_an_upload_as_the_documents_show_it(kind: str | None, store: S3Store, swift: Swift, bucket: str) -> None:
    content = CONTENT + str(kind).encode()
    headers = {"Content-Type": kind} if kind else {}
    answer = httpx.put(store.put_url("jobs/1/input.zip", max_bytes=1000), content=content, headers=headers, timeout=60)
    assert answer.status_code == 200 and answer.headers["etag"] and answer.content == b""
    assert swift.listed(bucket) == {"tadpole/jobs/1/input.zip": len(content)} and swift.on_disk(content)
    assert store.uploaded("jobs/1/input.zip", max_bytes=1000).size == len(content)
    with store.open("jobs/1/input.zip") as file:
        assert file.read() == content


def test_a_chunked_upload_is_refused_or_whole(store: S3Store) -> None:
    """S3 wants a Content-Length; a server that takes chunks has to have all of them."""
    answer = httpx.put(store.put_url("a", max_bytes=1000), content=iter([b"one", b"two"]), timeout=60)
    assert answer.status_code == 411 or (answer.status_code == 200 and store.uploaded("a", max_bytes=1000).size == 6)


def test_urls_are_for_one_thing_only(store: S3Store, swift: Swift, bucket: str) -> None:
    url = store.put_url("jobs/1/input.zip", max_bytes=1000)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["3600"]
    refused = {
        "another key": httpx.put(url.replace("jobs/1/", "jobs/2/"), content=CONTENT, timeout=60),
        "another bucket": httpx.put(url.replace(f"/{bucket}/", "/elsewhere/"), content=CONTENT, timeout=60),
        "another method": httpx.get(url, timeout=60),
        "another time": httpx.put(url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"), content=CONTENT, timeout=60),
        "another signature": httpx.put(url[:-1] + ("0" if url[-1] != "0" else "1"), content=CONTENT, timeout=60),
    }
    assert {what: answer.status_code for what, answer in refused.items()} == dict.fromkeys(refused, 403)
    assert httpx.put(url.partition("?")[0], content=CONTENT, timeout=60).is_client_error  # which it does not take for S3 without a signature
    assert swift.listed(bucket) == {}


def test_urls_expire(store: S3Store, swift: Swift, bucket: str) -> None:
    put, get = store.put_url("a", max_bytes=1000, seconds=1), store.get_url("a", seconds=1)
    late = wait_for(lambda: answer if (answer := httpx.get(get, timeout=60)).status_code == 403 else None, 30, "the URLs to expire")
    answer = httpx.put(put, content=CONTENT, timeout=60)
    assert answer.status_code == 403 and b"expired" in answer.content and b"expired" in late.content
    assert swift.listed(bucket) == {}


def test_what_is_too_long_does_not_stay(store: S3Store, swift: Swift, bucket: str) -> None:
    assert httpx.put(store.put_url("a", max_bytes=10), content=b"x" * 11, timeout=60).status_code == 200  # a signed PUT has no limit
    with pytest.raises(TooLarge):
        store.uploaded("a", max_bytes=10)
    assert swift.listed(bucket) == {}


def test_a_download_has_its_name(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert store.save("jobs/1/output.zip", tmp_path / "a").size == len(CONTENT)
    answer = httpx.get(store.get_url("jobs/1/output.zip", seconds=60, file_name="my frög.zip"), timeout=60)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-disposition"].startswith("attachment")
    ranged = httpx.get(store.get_url("jobs/1/output.zip", seconds=60), headers={"Range": "bytes=0-1"}, timeout=60)
    assert (ranged.status_code, ranged.content) == (206, CONTENT[:2])


def test_what_is_deleted_is_gone(store: S3Store, swift: Swift, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    store.save("a", tmp_path / "a")
    store.delete("a")
    store.delete("a")
    assert swift.listed(bucket) == {} and store.head("a") is None
    with pytest.raises(NoSuchObject):
        store.open("a")


def tadpole(service: RealService, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TADPOLE_URL": service.url, "TADPOLE_API_KEY": service.key, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "service.cli", *words], capture_output=True, text=True, encoding="utf-8", env=environment, timeout=580)


def test_a_training_by_the_command_line(swift: Swift, bucket: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive_of_pictures(tmp_path)) as archive:
        archive.extractall(tmp_path / "pictures")
    arguments = {"max_train_steps": 2, "resolution": 64, "num_validation_images": 1, "validation_epochs": 1, "train_batch_size": 1}
    environment = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION}
    with real_service(tmp_path / "service", environment, store=f"s3://{bucket}/service", store_endpoint=swift.endpoint) as service:
        words = ("train-diffuser", "my-frog", BASE, str(tmp_path / "pictures"), "a sks frog", "--training-args", json.dumps(arguments), "--json")
        made = tadpole(service, *words)
        assert made.returncode == 0, made.stderr
        job_id = json.loads(made.stdout)["jobId"]
        assert f"service/jobs/{job_id}/input.zip" in swift.listed(bucket)
        followed = tadpole(service, "get-training-logs", job_id)
        assert followed.returncode == 0, followed.stdout + followed.stderr
        assert json.loads(tadpole(service, "check-job-status", job_id, "--json").stdout)["status"] == "succeeded"
        fetched = tadpole(service, "download-model", job_id, "-o", str(tmp_path / "model.zip"))
        assert fetched.returncode == 0, fetched.stderr
        content = (tmp_path / "model.zip").read_bytes()
        wait_for(lambda: swift.on_disk(content), 30, "the model on Swift's disk")
        assert len(content) in [size for key, size in swift.listed(bucket).items() if key.startswith(f"service/jobs/{job_id}/")]
        with zipfile.ZipFile(io.BytesIO(content)) as model:
            assert any(name.endswith(".safetensors") for name in model.namelist())
