"""From an upload to a result: the stages, with a trainer package that is a small script."""
from __future__ import annotations

import io
import json
import socket
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
from job_shop import Shop, pictures

from service.database.tables import StoredFile
from service.jobs.board import NewJob
from service.jobs.states import CANCELED, FAILED, FINAL, SUCCEEDED, TRAINING
from service.keys import Caller
from tests.service.waiting import wait_until


def test_from_an_upload_to_a_result(shop: Shop) -> None:
    job_id = shop.job(archive=pictures(2, notes__pdf=b"x"))
    job = shop.end(job_id)
    assert (job.state, job.error) == (SUCCEEDED, None)
    (file,) = job.output["files"] if job.output else []
    assert file["name"] == "output.zip"
    url = shop.services.store.get_url(file["key"], seconds=60)
    answer = shop.client.get(url)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert json.loads(archive.read("pictures.json")) == ["00001.png", "00002.png"]
    assert (len(answer.content), job.progress["pictures"]) == (file["size"], 2)
    assert any("only 2 of 3" in warning for warning in job.warnings)


def test_the_log_is_read_and_followed(shop: Shop) -> None:
    job_id = shop.job(archive=pictures())
    shop.end(job_id)
    answer = shop.client.get(f"/v1/jobs/{job_id}/logs").json()
    assert answer["text"] == "3 pictures, 0 of the class\n100%\ntraining with tadpole_abcdefghij_***\n"
    assert answer["is_over"]
    rest = shop.client.get(f"/v1/jobs/{job_id}/logs", params={"offset": answer["next_offset"]}).json()
    assert rest == {"text": "", "next_offset": answer["next_offset"], "is_over": True}
    stream = shop.client.get(f"/v1/jobs/{job_id}/logs/stream", headers={"Last-Event-ID": "27"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.split("\n")[1:3] == ["data: 100%", "data: training with tadpole_abcdefghij_***"]
    assert "event: end" in stream.text
    shown = shop.client.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["canceling"], shown["input"]) == ("succeeded", False, {"kind": "pack"})


def test_the_folders_of_another_client(shop: Shop) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pictures(3))) as plain, zipfile.ZipFile(buffer, "w") as archive:
        for place, name in zip(("trainingData", "trainingData", "classData"), plain.namelist(), strict=True):
            archive.writestr(f"dataset/{place}/{name}", plain.read(name))
    job = shop.end(shop.job(archive=buffer.getvalue(), api="cerebrium"))
    assert (job.state, job.progress["pictures"], job.progress["class_pictures"]) == (SUCCEEDED, 2, 1)


def test_a_failure_tells_what_the_trainer_says(shop: Shop) -> None:
    job = shop.end(shop.job("fail", pictures()))
    assert (job.state, job.error) == (FAILED, "this cannot be trained")


@pytest.mark.parametrize(
    ("archive", "said"),
    [(None, "there are no pictures: neither an upload nor instance_data"), (b"no zip", "zip"), (pictures(0, readme__txt=b"x"), "no usable picture")],
)
def test_an_archive_that_is_none(archive: bytes | None, said: str, shop: Shop) -> None:
    job = shop.end(shop.job(archive=archive))
    assert job.state == FAILED
    assert said in str(job.error)


def test_an_upload_that_never_came(shop: Shop) -> None:
    job = shop.services.board.create(shop.caller, NewJob("tiyaro", input_key="jobs/x/input.zip", is_ready=True))
    assert shop.end(job.id).error == "nothing was uploaded; PUT the archive to its URL, then start the job"


def test_a_started_job_keeps_its_pictures(shop: Shop) -> None:
    job_id = shop.job("wait", pictures())
    url = shop.services.store.put_url(f"jobs/{job_id}/input.zip", max_bytes=10**7)
    assert shop.client.put(url, content=pictures(1)).status_code == 409
    shop.client.post(f"/v1/jobs/{job_id}/cancel")
    shop.end(job_id)  # a service that stops leaves what runs to the next one, and here there is none


def test_a_cancel_reaches_what_runs(shop: Shop) -> None:
    job_id = shop.job("wait", pictures())
    wait_until(lambda: shop.get(job_id).state == TRAINING and shop.get(job_id).handle)
    answer = shop.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (answer["state"], answer["canceling"]) == ("training", True)
    job = shop.end(job_id)
    assert (job.state, job.error) == (CANCELED, f"canceled by key {shop.caller.key_id}")
    assert shop.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "canceled"


def test_jobs_of_others_are_not_shown(shop: Shop) -> None:
    job_id = shop.job(archive=pictures())
    keys = shop.services.keys
    stranger = {"Authorization": keys.create(keys.project("other"), "x")}
    paths = [f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/logs", f"/v1/jobs/{job_id}/logs/stream"]
    assert [shop.client.get(path, headers=stranger).status_code for path in paths] == [404, 404, 404]
    assert shop.client.post(f"/v1/jobs/{job_id}/cancel", headers=stranger).status_code == 404
    shop.end(job_id)


def test_own_files_are_read_without_the_network_and_only_by_their_project(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.zip"
    source.write_bytes(pictures(4))
    shop.services.store.save("files/abc", source)
    with shop.services.database.writing() as session:
        session.add(
            StoredFile(
                id="abc", project_id=shop.caller.project_id, name="a.zip", content_type="application/zip", size=1, etag="", md5="", sha256="",
                details={}, key="files/abc", created_at=0.0, expires_at=None,
            )
        )  # fmt: skip
    url = f"{shop.services.settings.url}/v1/files/abc"
    signed = shop.services.store.get_url("files/abc", seconds=3600)
    for address in (url, f"{url}/download?expiry=1", signed):
        wanted = NewJob("dreambooth", inputs={"kind": "pack", "instance_data": address}, details={"trainer_version": "toy-1"}, is_ready=True)
        job = shop.end(shop.services.board.create(shop.caller, wanted).id)
        assert (job.state, job.progress.get("pictures")) == (SUCCEEDED, 4)
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror))  # to a stranger it is an address like others
    stranger = Caller(shop.services.keys.project("other"), "k", frozenset())
    job = shop.services.board.create(stranger, wanted)
    wait_until(lambda: shop.services.board.get(stranger.project_id, job.id).state in FINAL)
    assert shop.services.board.get(stranger.project_id, job.id).state == FAILED
