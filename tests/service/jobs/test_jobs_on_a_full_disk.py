"""The disk is full: wherever a job finds no room, it fails with a line that says so, and the next one succeeds when there is some."""
from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from job_shop import Shop, pictures

from service.jobs.states import FAILED, SUCCEEDED
from service.storage.space import DiskFull

WRITTEN = [  # by what, in the order in which a job comes by
    "*/input/*.part",  # the archive from the store
    "*/.unpacking/raw",  # a picture of it
    "*/.prepared.json.part",  # what came of it
    "*/.inputs.json.part",  # what the trainer is told
    "*/exit.json.reserved",  # what the executor keeps of a run
    "*/.spec.json.*",
    "*/.warnings.json.part",  # what came of building
    "*/incoming/*",  # the result, on its way into the store
]


def without_room(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Files of this pattern can be opened, but not be written to."""
    opened = Path.open

    def full(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if set(mode) & set("wxa+") and fnmatch(path.as_posix(), pattern):
            path.touch()
            raise OSError(28, "No space left on device")
        return opened(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", full)


@pytest.mark.parametrize("pattern", WRITTEN)
def test_a_job_without_room_says_so(pattern: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = shop.job(archive=pictures(), start=False)
    with monkeypatch.context() as patch:
        without_room(patch, pattern)
        job = shop.end(shop.start(job_id))
        assert (job.state, job.error) == (FAILED, str(DiskFull()))
    data = shop.services.settings.data_dir
    left = [path.name for path in (*data.rglob("*.part"), *data.rglob(".unpacking"))]
    assert [name for name in left if not name.endswith(".json.part")] == []  # these have no bytes to speak of
    job = shop.end(shop.job(archive=pictures()))
    assert (job.state, job.error) == (SUCCEEDED, None)


def test_a_trainer_without_room_says_so(shop: Shop) -> None:
    job = shop.end(shop.job("full", pictures()))
    assert (job.state, job.error) == (FAILED, str(DiskFull()))
