"""Metadata files: reading, writing, the backup, and what is said of files that are none."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.errors import UserError
from library.preparation.journal import Journal
from library.preparation.metadata_file import check_writable, read_metadata, read_sources, write_metadata

ENTRIES = {"a.png": {"caption": "ein Frosch, grün", "image_size": [3, 4]}, "b/c": {"tags": "x, y", "ours": {"any": [1]}}}


@pytest.mark.parametrize("name", ["meta.json", "meta.jsonl", "META.JSON"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_metadata(tmp_path / name, ENTRIES)
    assert read_metadata(tmp_path / name) == ENTRIES


def test_json_is_as_the_interface_says(tmp_path: Path) -> None:
    write_metadata(tmp_path / "meta.json", {"a": {"caption": "ü"}})
    assert (tmp_path / "meta.json").read_text(encoding="ascii") == '{\n  "a": {\n    "caption": "\\u00fc"\n  }\n}\n'
    write_metadata(tmp_path / "meta.jsonl", {"a": {"caption": "ü"}, "b": {}})
    lines = (tmp_path / "meta.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line) for line in lines] == [{"image_path": "a", "caption": "ü"}, {"image_path": "b"}]


def test_the_old_file_is_kept(tmp_path: Path) -> None:
    path, backup = tmp_path / "meta.json", tmp_path / "meta.json.bak"
    write_metadata(path, {"a": {}})
    assert not backup.exists()
    write_metadata(path, {"b": {}})
    assert (json.loads(backup.read_text()), json.loads(path.read_text())) == ({"a": {}}, {"b": {}})
    write_metadata(path, {"b": {}})  # nothing new: the backup stays the last different one
    assert json.loads(backup.read_text()) == {"a": {}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["meta.json", "meta.json.bak"]


def test_output_is_completed_by_input(tmp_path: Path) -> None:
    write_metadata(tmp_path / "in.json", {"a": {"caption": "new"}, "b": {"tags": "t"}})
    write_metadata(tmp_path / "out.json", {"a": {"caption": "old", "tags": "kept"}, "c": {}})
    merged = read_sources(str(tmp_path / "in.json"), str(tmp_path / "out.json"))
    assert merged == {"a": {"caption": "new", "tags": "kept"}, "b": {"tags": "t"}, "c": {}}
    assert read_sources(None, str(tmp_path / "new.json")) == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("meta.json", "[]", "holds one object"),
        ("meta.json", '{"a": "caption"}', '"a": expected {"caption": ..., "tags": ...}, found "caption"'),
        ("meta.json", '{"a": {"tags": ["x"]}}', '"a" tags: expected text, found ["x"]'),
        ("meta.json", '{"a": {}, "a": {}}', '"a" stands twice'),
        ("meta.json", '{"a": {"caption": "tor', "line 1: not valid JSON"),
        ("meta.jsonl", '{"image_path": "a"}\n\n{"image_path": "b", "capt', "line 3: not valid JSON"),
        ("meta.jsonl", '{"caption": "a"}', 'line 1: "image_path", the path of the image, is missing'),
        ("meta.jsonl", '{"image_path": "a"}\n{"image_path": "a"}', 'line 2: "a" stands on an earlier line'),
        ("meta.txt", "{}", "ends in .json or .jsonl"),
    ],
)
def test_mistakes_in_files(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read_metadata(tmp_path / name)
    assert said in str(raised.value)
    assert name in str(raised.value)


def test_line_separators_within_text_end_no_line(tmp_path: Path) -> None:
    (tmp_path / "meta.jsonl").write_text('{"image_path": "a", "caption": "one\u2028two"}\n', encoding="utf-8")
    assert read_metadata(tmp_path / "meta.jsonl") == {"a": {"caption": "one\u2028two"}}


def test_place_is_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    for name, said in (("folder.json", "this is a folder"), ("none/meta.json", "there is no folder"), ("meta", "ends in")):
        with pytest.raises(UserError, match=said):
            check_writable(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meta.json"
    write_metadata(path, {"a": {}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("library.checkpoint.files.flush_file", full)
    with pytest.raises(UserError, match="meta.json: this cannot be written: No space left on device"):
        write_metadata(path, {"b": {}})
    assert read_metadata(path) == {"a": {}}
    assert [file.name for file in tmp_path.iterdir()] == ["meta.json"]


def test_journal_forgets_only_a_torn_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "meta.json")
    journal.add("ä", {"tags": "1"})
    journal.add("b", {"tags": "2"})
    whole = journal.path.read_bytes()
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        again = Journal(tmp_path / "meta.json")
        assert len(again.entries) == whole[:length].count(b"\n")
        again.add("c", {"tags": "3"})
        assert Journal(tmp_path / "meta.json").entries == {**again.entries, "c": {"tags": "3"}}
    again.path.write_bytes(whole + b"\0" * 100 + b"\n")  # a power cut
    assert Journal(tmp_path / "meta.json").entries == journal.entries
    again.remove()
    assert list(tmp_path.iterdir()) == []
