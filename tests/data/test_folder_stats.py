"""What is said of files is the same whether another process looks, cannot look, or is not asked to."""
from __future__ import annotations

import os
import sys

import pytest

from library.data import folder_stats
from library.data.folder_stats import FolderStats

NAMES = ("0.png", "a name with spaces.txt", "蛙.png", "line\nbreak.txt")


@pytest.fixture
def folder(tmp_path):
    names = NAMES if os.name != "nt" else NAMES[:-1]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * number)
        os.utime(tmp_path / name, ns=(0, 1_700_000_000_123_456_700 + 100 * number))
    return tmp_path


def waited(stats: FolderStats) -> FolderStats:
    stats.wait()
    return stats


def answers(stats: FolderStats, folder) -> dict[str, str]:
    stats.wait()
    return {path.name: stats[path.name] for path in folder.iterdir()}


def test_a_second_process_says_the_same(folder, monkeypatch):
    expected = {path.name: f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in folder.iterdir()}
    assert answers(FolderStats(folder, many=False), folder) == expected
    stats = FolderStats(folder, many=True)
    monkeypatch.setattr(FolderStats, "__missing__", lambda *_: pytest.fail("the second process has found it"))
    assert answers(stats, folder) == expected


def test_what_is_gone_has_no_answer(folder):
    stats = waited(FolderStats(folder, many=True))
    assert stats["nothing.png"] == FolderStats(folder, many=False)["nothing.png"] == ""


@pytest.mark.parametrize("program", ["no such program", "fails"])
def test_without_the_second_process_each_file_is_looked_at(folder, monkeypatch, program):
    if program == "fails":
        monkeypatch.setattr(folder_stats, "_LOOK", "raise SystemExit(1)")
    else:
        monkeypatch.setattr(sys, "executable", str(folder / "no such program"))
    assert answers(FolderStats(folder, many=True), folder) == answers(FolderStats(folder, many=False), folder)


def test_of_a_folder_that_is_not_there_nothing_is_found(tmp_path):
    assert waited(FolderStats(tmp_path / "missing", many=True))["0.png"] == ""


def test_after_clearing_it_looks_anew(folder):
    stats = waited(FolderStats(folder, many=True))
    before = stats["0.png"]
    stats.clear()
    (folder / "0.png").write_bytes(b"longer")
    assert before.startswith("0 ") and stats["0.png"].startswith("6 ")
