"""What is in output.zip, and how the list of results describes it."""
from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from service.jobs.results import pack, result_files
from service.jobs.stages import Stopped
from service.training.job_folder import JobFolder


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A whole model in Diffusers layout, two samples and their sheet."""
    folder = JobFolder(tmp_path)
    (folder.output / "model" / "unet").mkdir(parents=True)
    (folder.output / "model" / "model_index.json").write_text("{}", encoding="utf-8")
    (folder.output / "model" / "unet" / "config.json").write_text("{}", encoding="utf-8")
    folder.arguments_file.write_text('{"seed": 1}', encoding="utf-8")
    folder.samples.mkdir()
    for name in ("model_000006_00_2026_1.png", "model_000006_01_2026_2.png", "model_sheet_2026.png", "notes.txt"):
        (folder.samples / name).write_text(name, encoding="utf-8")
    return folder


def packed(folder: JobFolder) -> dict[str, str]:
    with zipfile.ZipFile(folder.result / "output.zip") as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_a_model_lies_at_the_root(folder: JobFolder) -> None:
    pack(folder, lambda: False)
    assert packed(folder) == {
        "model_index.json": "{}",
        "unet/config.json": "{}",
        "args.json": '{"seed": 1}',
        "samples/0.png": "model_000006_00_2026_1.png",
        "samples/1.png": "model_000006_01_2026_2.png",
    }
    (file,) = result_files(folder)
    content = file.path.read_bytes()
    assert (file.name, file.size, file.sha256) == ("output.zip", len(content), hashlib.sha256(content).hexdigest())


def test_what_a_trainer_package_packed_is_taken_as_it_is(folder: JobFolder) -> None:
    (folder.output / "output.zip").write_bytes(b"theirs")
    pack(folder, lambda: False)
    pack(folder, lambda: False)
    assert (folder.result / "output.zip").read_bytes() == b"theirs"


def test_what_was_stopped_leaves_nothing_that_looks_whole(folder: JobFolder) -> None:
    with pytest.raises(Stopped):
        pack(folder, lambda: True)
    assert list(folder.result.iterdir()) == []
    pack(folder, lambda: False)
    assert len(packed(folder)) == 5
