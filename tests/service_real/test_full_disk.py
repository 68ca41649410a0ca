"""A job fills the disk on which the service keeps what it knows of it. Needs to be root: a small disk is made of memory."""
from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.space import DiskFull
from tests.service.executors.jobs import local, over, shell


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_how_it_ended_is_known_all_the_same(small_disk: Path) -> None:
    executor = local(small_disk)
    script = "echo begin; while [ ! -s ../log.txt ]; do sleep 0.02; done; cat /dev/zero > rest; echo end; exit 9"
    handle = executor.submit(shell(small_disk, script))
    status = over(executor, handle)
    assert status[:3] == ("ended", 9, str(DiskFull()))
    assert executor.logs(handle).startswith(b"begin\n")
    assert local(small_disk).adopt(handle) == status


def test_a_job_that_cannot_be_written_down_is_lost(small_disk: Path) -> None:
    executor, spec = local(small_disk), shell(small_disk, "touch ran")
    with pytest.raises(OSError, match="No space left"), (small_disk / "full").open("wb") as file:
        while True:
            file.write(b" " * 4096)
            file.flush()
    with pytest.raises(OSError, match="No space left"):
        executor.submit(spec)
    assert executor.adopt(spec.handle) is None  # so that it is submitted again when there is room
    (small_disk / "full").unlink()
    assert over(executor, executor.submit(spec)).exit_code == 0
