"""metadata_cache.json: it spares work, and is believed only of files that are as they were."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from library.data import caption_folders, folder_index, scan
from library.data.validation import validation_datasets
from tests.data.tiny_datasets import prepare, subset_of, write_image, write_images

SIZES = [(96, 64), (64, 64), (64, 96)]


@pytest.fixture(autouse=True, params=["small", "large"])
def looking(request, monkeypatch):
    """Every test both ways: each file looked at when it is asked for, and all of them by a second process."""
    monkeypatch.setattr(folder_index, "_MANY_BYTES", {"small": 1 << 40, "large": -1}[request.param])


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", SIZES)


@pytest.fixture
def work(monkeypatch):
    """The names of the files whose header or caption is read, in a set that is too large to be decoded whole."""
    monkeypatch.setattr(scan, "FULL_CHECK_PIXELS", 0)
    read: list[str] = []
    header, lines = scan.read_header, caption_folders.caption_lines
    monkeypatch.setattr(scan, "read_header", lambda path: read.append(Path(path).name) or header(path))
    monkeypatch.setattr(caption_folders, "caption_lines", lambda path: read.append(Path(path).name) or lines(path))
    return read


def known(folder: Path, **options) -> dict[str, tuple]:
    (prepared,) = prepare(subset_of(folder, cache_info=True, **options))
    return {Path(record.path).name: (record.size, record.caption, record.has_caption) for record in prepared.records}


def content(folder: Path) -> dict:
    return json.loads((folder / folder_index.NAME).read_text(encoding="utf-8"))


def change_entries(folder: Path, **changes) -> None:
    """The index with something else in every entry, written as it is written by us."""
    lines = [f"{json.dumps(path)}:{json.dumps({**entry, **changes})}" for path, entry in content(folder).items()]
    (folder / folder_index.NAME).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def test_a_second_start_reads_nothing(folder, work):
    first = known(folder)
    assert sorted(work) == sorted(name for number in range(3) for name in (f"{number}.png", f"{number}.txt"))
    work.clear()
    assert known(folder) == first
    assert work == []
    assert first["0.png"] == ((96, 64), "one 0, two, three, four, five", True)


def test_other_tools_can_read_it(folder):
    known(folder)
    entry = content(folder)[str(folder / "0.png")]
    assert (entry["caption"], entry["resolution"]) == ("one 0, two, three, four, five", [96, 64])
    (folder / "1.txt").unlink()
    known(folder, class_tokens="sls frog")
    assert content(folder)[str(folder / "1.png")]["caption"] == "sls frog"


def test_without_cache_info_there_is_none(folder):
    prepare(subset_of(folder))
    assert not (folder / folder_index.NAME).exists()


def test_what_changed_is_read_again(folder, work):
    known(folder)
    work.clear()
    Image.new("RGB", (128, 128)).save(folder / "0.png")
    (folder / "1.txt").write_text("another", encoding="utf-8")
    (folder / "2.txt").unlink()
    write_image(folder / "3.png", (64, 64), 9)
    found = known(folder)
    assert sorted(work) == ["0.png", "0.txt", "1.png", "1.txt", "2.png", "3.png"]
    assert found["0.png"] == ((128, 128), "one 0, two, three, four, five", True)
    assert found["1.png"][1:] == ("another", True)
    assert found["2.png"][1:] == found["3.png"][1:] == ("", False)
    work.clear()
    assert known(folder) == found
    assert work == []


def test_the_same_bytes_at_another_time_are_another_file(folder, work):
    known(folder)
    work.clear()
    os.utime(folder / "0.png", ns=(5, 5))
    known(folder)
    assert sorted(work) == ["0.png", "0.txt"]
    work.clear()
    os.utime(folder / "1.txt", ns=(5, 5))
    known(folder)
    assert sorted(work) == ["1.png", "1.txt"]


def test_a_picture_that_is_gone_leaves_the_index(folder):
    known(folder)
    (folder / "1.png").unlink()
    assert known(folder).keys() == {"0.png", "2.png"}
    assert len(content(folder)) == 2


def test_captions_belong_to_their_pictures_beside_a_validation_split(folder):
    """On the second run every caption was attached to the wrong image, and the rest of the images was lost."""
    for _ in range(3):
        prepared = prepare(subset_of(folder, cache_info=True, validation_split=0.34))
        records = [record for dataset in (*prepared, *validation_datasets(prepared)) for record in dataset.records]
        assert {Path(record.path).stem: record.caption.split(",")[0] for record in records} == {str(n): f"one {n}" for n in range(3)}
        assert len(content(folder)) == 3


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"0.png": 3}', '{"a/0.png": {"caption": "wrong", "resolution": [1, 1]}}', '{"0.png": {"resolution": [0, "x"]}}'],
)
def test_what_others_or_nobody_wrote_is_not_believed(folder, text):
    (folder / folder_index.NAME).write_text(text, encoding="utf-8")
    assert known(folder)["0.png"] == ((96, 64), "one 0, two, three, four, five", True)
    assert len(content(folder)) == 3


@pytest.mark.parametrize("nonsense", [{"resolution": [3]}, {"resolution": [0, -1]}, {"caption": 5}])
def test_stamps_beside_nonsense(folder, nonsense):
    known(folder)
    change_entries(folder, **nonsense)
    assert known(folder)["0.png"] == ((96, 64), "one 0, two, three, four, five", True)


def test_an_index_that_another_tool_has_written_anew_is_not_believed(folder, work):
    known(folder)
    others = {path: {**entry, "caption": "another"} for path, entry in content(folder).items()}
    (folder / folder_index.NAME).write_text(json.dumps(others, indent=2), encoding="utf-8")
    assert known(folder)["0.png"] == ((96, 64), "one 0, two, three, four, five", True)


def test_wildcards_find_all_lines_whoever_wrote_the_index(folder):
    (folder / "0.txt").write_text("one\ntwo", encoding="utf-8")
    assert known(folder)["0.png"][1] == "one"
    assert known(folder, caption={"enable_wildcard": True})["0.png"][1] == "one\ntwo"


def test_an_empty_caption_stays_one(folder):
    (folder / "0.txt").write_text("", encoding="utf-8")
    assert known(folder)["0.png"] == known(folder)["0.png"] == ((96, 64), "", True)


def test_a_wrong_size_is_found_where_pixels_are_looked_at(folder):
    known(folder)
    change_entries(folder, resolution=[640, 480])
    assert known(folder)["0.png"][0] == (96, 64)


def test_a_moved_folder_keeps_its_index(folder, work):
    first = known(folder)
    moved = folder.rename(folder.with_name("moved"))
    work.clear()
    assert known(moved) == first
    assert work == []


def test_a_folder_that_cannot_be_written_is_noted(folder, monkeypatch):
    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder_index, "write_text", refuse)
    (prepared,) = prepare(subset_of(folder, cache_info=True))
    assert "cache_info: " in prepared.notes[0] and "cannot be written (Permission denied)" in prepared.notes[0]


def test_class_tokens_of_pictures_without_a_caption_are_kept_up_to_date(folder):
    (folder / "0.txt").unlink()
    for tokens in ("sls frog", "a toad"):
        known(folder, class_tokens=tokens)
        assert content(folder)[str(folder / "0.png")]["caption"] == tokens


def test_an_index_that_holds_is_not_written_again(folder, monkeypatch):
    known(folder)
    monkeypatch.setattr(folder_index, "write_text", lambda path, text: pytest.fail("written"))
    known(folder)


def test_a_caption_that_vanishes_between_listing_and_reading_is_not_taken_from_the_index(folder):
    known(folder)
    (folder / "0.txt").unlink()
    (folder / "1.png").unlink()
    index = folder_index.FolderIndex(folder)
    index.read([f"{number}.png" for number in range(3)], [f"{number}.txt" for number in range(3)])
    assert index.sizes == [None, None, (64, 96)] and index.captions == [None, None, "one 2, two, three, four, five"]
