"""A service whose disk fills up: what is uploaded, trained and packed then, and that all goes on when there is room. Needs to be root."""
from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from service.storage.space import DiskFull
from tests.service_real.real_service import SHORT, RealService, archive_of_pictures, wait_for
from tests.service_real.small_trainer import VERSION, SmallTrainer

MIB = 1 << 20
DISK_MIB, RESERVE_MIB = 192, 16
TOLD = str(DiskFull())


class Disk:
    """A small disk of memory, with a file that takes away as much of it as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], check=True)

    def leave(self, free_bytes: int) -> None:
        """So much is free from now on."""
        with self._filler.open("ab") as file:
            size = file.tell()
            file.truncate(max(0, min(size, size + self._free() - free_bytes)))
            while (missing := self._free() - free_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + missing)
                except OSError as error:  # the service has written something meanwhile
                    if error.errno != errno.ENOSPC:
                        raise

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    disk = Disk(tmp_path_factory.mktemp("small") / "disk")
    yield disk
    disk.unmount()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> SmallTrainer:
    return SmallTrainer(tmp_path_factory.mktemp("trainers"))


@pytest.fixture(scope="module")
def service(disk: Disk, trainer: SmallTrainer) -> Iterator[RealService]:
    service = RealService(disk.folder / "service", trainers=str(trainer.folder.parent), disk_reserve_gib=RESERVE_MIB / 1024)
    yield service
    disk.clear()
    service.close()


@pytest.fixture
def pictures(service: RealService, disk: Disk, tmp_path: Path) -> Iterator[str]:
    """The address of an uploaded archive; afterwards there is room again."""
    answer = service.post("/v1/upload/frog.zip", {}).json()
    assert httpx.put(answer["upload_url"], content=archive_of_pictures(tmp_path).read_bytes(), timeout=60).status_code == 200
    yield answer["serving_url"]
    disk.clear()


def order(service: RealService, pictures: str, name: str, **inputs: object) -> str:
    body = {"input": {"name": name, "instance_data": pictures, **inputs}, "model": "default/frog", "trainer_version": VERSION}
    answer = service.post("/v1/trainings", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def succeeds(service: RealService, pictures: str, name: str) -> None:
    job = service.over(order(service, pictures, name))
    assert (job["state"], job["error"]) == ("succeeded", None)


def incoming(service: RealService) -> list[Path]:
    return list((service.data / "store" / "incoming").glob("*"))


def test_uploads_are_refused_and_leave_nothing(service: RealService, disk: Disk, pictures: str) -> None:
    url = service.post("/v1/upload/large.zip", {}).json()["upload_url"]
    disk.leave((RESERVE_MIB + 8) * MIB)
    refused = httpx.put(url, content=bytes(5 * MIB), timeout=60)  # it would be unpacked beside itself
    assert (refused.status_code, TOLD in refused.text) == (507, True)
    disk.leave(RESERVE_MIB * MIB - MIB)
    refused = httpx.post(f"{service.url}/v1/files", files={"content": b"x"}, headers={"Authorization": service.key}, timeout=60)
    assert (refused.status_code, refused.json()["detail"]) == (507, TOLD)
    assert incoming(service) == []
    disk.clear()
    assert httpx.put(url, content=bytes(5 * MIB), timeout=60).status_code == 200


def test_pictures_that_find_no_room_fail_the_job(service: RealService, disk: Disk, pictures: str) -> None:
    disk.leave(RESERVE_MIB * MIB - MIB)
    job = service.over(order(service, pictures, "no-room-to-unpack"))
    assert (job["state"], job["error"]) == ("failed", TOLD)
    disk.clear()
    succeeds(service, pictures, "unpacked")


def test_a_training_that_fills_the_disk_fails_and_says_so(service: RealService, disk: Disk, trainer: SmallTrainer, pictures: str) -> None:
    """To the last byte, so that the database finds no room either, and what it should have noted is noted as soon as there is some."""
    job_id = order(service, pictures, "filling", kind="wait", size=2 * DISK_MIB * MIB)
    wait_for(lambda: "training of filling" in service.log(job_id), 60, "the training to begin")
    (process,) = trainer.runs("filling")
    trainer.go("filling")
    wait_for(lambda: not psutil.pid_exists(process), 60, "the training to fail")
    assert service.get(f"/v1/jobs/{job_id}")["input"]["name"] == "filling"
    shutil.rmtree(service.data / "jobs" / job_id / "output")  # what its operator finds
    job = service.over(job_id)
    assert (job["state"], job["error"], len(trainer.runs("filling"))) == ("failed", TOLD, 1)
    assert "training of filling" in service.log(job_id)
    succeeds(service, pictures, "trained")


def test_a_result_that_finds_no_room_in_the_store_fails_the_job(service: RealService, disk: Disk, trainer: SmallTrainer, pictures: str) -> None:
    job_id = order(service, pictures, "large", kind="wait", size=20 * MIB)
    wait_for(lambda: trainer.runs("large"), 60, "the training to begin")
    disk.leave((RESERVE_MIB + 22) * MIB)  # for the result, and not for a second one in the store
    trainer.go("large")
    job = service.over(job_id)
    assert (job["state"], job["error"]) == ("failed", TOLD)
    assert incoming(service) == []
    disk.clear()
    succeeds(service, pictures, "stored")


def test_a_disk_without_any_room_stops_nothing_for_good(service: RealService, disk: Disk, trainer: SmallTrainer, pictures: str) -> None:
    """Not a byte, for the database neither. What runs then is canceled all the same, or ends when there is room, once."""
    jobs = {name: order(service, pictures, name, kind="wait") for name in ("canceled", "finished")}
    wait_for(lambda: trainer.runs("canceled") or trainer.runs("finished"), 60, "a training to begin")
    first, second = sorted(jobs, key=lambda name: not trainer.runs(name))
    wait_for(lambda: f"training of {first}" in service.log(jobs[first]), 60, "its log to be written")
    disk.leave(0)
    models = ({"owner": "default", "name": f"m{number}", "description": "x" * 50_000} for number in range(100))
    refused = next(answer for answer in (service.post("/v1/models", model) for model in models) if answer.status_code != 201)
    assert (refused.status_code, refused.json()["detail"]) == (507, TOLD)
    assert service.get(f"/v1/jobs/{jobs[first]}")["state"] == "training"
    trainer.go(first)
    disk.clear()
    job = service.over(jobs[first])
    assert (job["state"], len(trainer.runs(first))) in (("succeeded", 1), ("failed", 1))
    assert job["error"] in (None, TOLD)
    service.post(f"/v1/jobs/{jobs[second]}/cancel", {})
    assert service.over(jobs[second])["state"] == "canceled"
    succeeds(service, pictures, "at-last")


def test_a_real_training_without_room_says_so(service: RealService, disk: Disk, pictures: str) -> None:
    disk.leave((RESERVE_MIB + 8) * MIB)
    body = {"input": {**SHORT, "instance_data": pictures}, "model": "default/frog"}
    job = service.over(service.post("/v1/trainings", body).json()["id"])
    assert job["state"] == "failed"
    assert "disk" in job["error"] or "room" in job["error"]
