"""What is too old goes, what is not stays, and a dry run deletes nothing."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.database.tables import Job, PageSession, Prediction, StoredFile
from service.janitor import DAY_SECONDS, Janitor
from service.jobs.board import NewJob
from service.keys import Caller
from service.packages.predictions import NewPrediction
from service.services import Services
from service.training.job_folder import JobFolder

NOW = 200 * DAY_SECONDS


@pytest.fixture
def janitor(services: Services) -> Janitor:
    return Janitor(services.database, services.store, services.settings, lambda: NOW)


def put(services: Services, key: str, folder: Path) -> None:
    source = folder / "source"
    source.write_bytes(b"x")
    services.store.save(key, source)


def job_of(services: Services, caller: Caller, folder: Path, age_days: float, state: str) -> str:
    """A job with an upload, pictures and a log."""
    job_id = services.board.create(caller, NewJob("tiyaro")).id
    key = f"jobs/{job_id}/input.zip"
    put(services, key, folder)
    put(services, f"jobs/{job_id}/output.zip", folder)
    created = NOW - age_days * DAY_SECONDS
    completed = created if state == "succeeded" else None
    with services.database.writing() as session:
        values = {"input_key": key, "state": state, "created_at": created, "completed_at": completed}
        session.execute(update(Job).where(Job.id == job_id).values(**values))
    job_folder = JobFolder(services.settings.jobs_dir / job_id)
    job_folder.instance_pictures.mkdir(parents=True)
    job_folder.log("training").parent.mkdir(parents=True)
    job_folder.log("training").touch()
    return job_id


@pytest.mark.parametrize(
    ("age_days", "state", "kept"),
    [
        (29, "succeeded", {"input", "pictures", "log"}), (31, "succeeded", {"log"}), (91, "succeeded", set()),
        (31, "created", {"log"}), (29, "uploading", {"input", "pictures", "log"}), (300, "training", {"input", "pictures", "log"}),
        (300, "queued", {"input", "pictures", "log"}),
    ],
)  # fmt: skip
def test_a_job(age_days: float, state: str, kept: set[str], services: Services, caller: Caller, janitor: Janitor, tmp_path: Path) -> None:
    job_id = job_of(services, caller, tmp_path, age_days, state)

    def there() -> set[str]:
        folder = JobFolder(services.settings.jobs_dir / job_id)
        found = {"input": services.store.head(f"jobs/{job_id}/input.zip"), "pictures": folder.instance_pictures.exists()}
        return {name for name, is_there in {**found, "log": folder.log("training").exists()}.items() if is_there}

    planned = janitor.sweep(dry_run=True)
    assert there() == {"input", "pictures", "log"}
    assert janitor.sweep() == planned
    assert there() == kept
    assert services.store.head(f"jobs/{job_id}/output.zip") is not None
    assert janitor.sweep() == []
    if state == "created":
        job = services.board.get(caller.project_id, job_id)
        assert (job.state, job.error) == ("failed", "it was never started, and its upload is deleted")


def test_a_job_that_is_started_while_the_janitor_goes_round_keeps_its_upload(
    services: Services, caller: Caller, janitor: Janitor, tmp_path: Path
) -> None:
    job_id = job_of(services, caller, tmp_path, 31, "uploading")
    (removal,) = janitor._removals()
    assert services.board.start(caller.project_id, job_id).state == "queued"
    removal.act()
    job = services.board.get(caller.project_id, job_id)
    assert (job.state, job.error) == ("queued", None)
    assert job.input_key is not None and services.store.head(job.input_key) is not None
    assert JobFolder(services.settings.jobs_dir / job_id).instance_pictures.exists()


def test_sessions_of_the_page_go_when_they_are_over(services: Services, caller: Caller, janitor: Janitor) -> None:
    with services.database.writing() as session:
        for digest, expires_at in (("old", NOW - 1), ("new", NOW + 1)):
            session.add(PageSession(digest=digest, key_id=caller.key_id, created_at=0.0, expires_at=expires_at))
    janitor.sweep()
    with services.database.reading() as session:
        assert session.scalars(select(PageSession.digest)).all() == ["new"]


def test_the_preview_of_a_draft_goes_with_its_pictures(services: Services, caller: Caller, janitor: Janitor, tmp_path: Path) -> None:
    job_id = job_of(services, caller, tmp_path, 31, "created")
    preview = JobFolder(services.settings.jobs_dir / job_id).preview
    preview.mkdir(parents=True)
    janitor.sweep()
    assert not preview.exists()


def test_files_go_when_they_expire(services: Services, caller: Caller, janitor: Janitor, tmp_path: Path) -> None:
    for file_id, expires_at in (("old", NOW - 1), ("new", NOW + 1), ("kept", None)):
        put(services, f"files/{file_id}", tmp_path)
        with services.database.writing() as session:
            session.add(
                StoredFile(
                    id=file_id, project_id=caller.project_id, name="x", content_type="x", size=1, etag="", md5="", sha256="", details={},
                    key=f"files/{file_id}", created_at=0.0, expires_at=expires_at,
                )
            )  # fmt: skip
    assert janitor.sweep() == ["file old"]
    assert [services.store.head(f"files/{name}") is not None for name in ("old", "new", "kept")] == [False, True, True]
    with services.database.reading() as session:
        assert session.get(StoredFile, "old") is None


@pytest.mark.parametrize(("age_hours", "state", "kept"), [(30, "succeeded", False), (20, "succeeded", True), (30, "processing", True)])
def test_predictions_go_with_their_pictures(
    age_hours: float, state: str, kept: bool, janitor: Janitor, services: Services, caller: Caller, tmp_path: Path
) -> None:
    made = services.predictions.create(caller, NewPrediction("ab12", "m", "default/frogs", {"prompt": "a frog"}))
    key = f"predictions/{made.id}/0.png"
    put(services, key, tmp_path)
    completed = NOW - age_hours * 3600 if state == "succeeded" else None
    with services.database.writing() as session:
        values = {"state": state, "output": [key], "completed_at": completed, "created_at": NOW - age_hours * 3600}
        session.execute(update(Prediction).where(Prediction.id == made.id).values(**values))
    told = f"prediction {made.id}"
    assert (told in janitor.sweep(dry_run=True)) is not kept
    assert services.predictions.find(caller.project_id, made.id) is not None  # a dry run deletes nothing
    janitor.sweep()
    assert (services.predictions.find(caller.project_id, made.id) is not None) is kept
    assert (services.store.head(key) is not None) is kept


def test_what_cannot_be_deleted_keeps_nothing_else(services: Services, caller: Caller, janitor: Janitor, tmp_path: Path) -> None:
    """Another service may be faster, or the database find no room: whatever makes some counts."""
    jobs = [job_of(services, caller, tmp_path, 91, "succeeded") for _ in range(2)]
    folders = [JobFolder(services.settings.jobs_dir / job_id).root for job_id in jobs]
    removals = list(janitor._folders())
    shutil.rmtree(folders[0])
    janitor._removals = lambda: iter(removals)  # type: ignore[method-assign]
    assert janitor.sweep() == [f"logs and samples of job {jobs[1]}"]
    assert not folders[1].exists()
