"""events.jsonl: lines that any JSON reader takes, at once, whatever is written."""

from __future__ import annotations

import json
from pathlib import Path

from library.train.events import VERSION, EventLog


def read(log: EventLog) -> list[dict]:
    return [json.loads(line, parse_constant=lambda name: 1 / 0) for line in log.path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    log = EventLog(tmp_path, rank=0)
    log.write("step", step=1, loss=0.5)
    (line,) = read(log)
    assert log.path == tmp_path / "events.jsonl"
    assert (line["v"], line["event"], line["step"], line["loss"]) == (VERSION, "step", 1, 0.5)
    assert line["time"] > 0


def test_each_process_has_a_file(tmp_path):
    assert EventLog(tmp_path, rank=1).path == tmp_path / "events.rank1.jsonl"


def test_a_log_is_continued_and_never_begun_anew(tmp_path):
    for step in (1, 2):
        log = EventLog(tmp_path, rank=0)
        log.write("step", step=step)
        log.close()
    assert [line["step"] for line in read(log)] == [1, 2]


def test_numbers_that_json_lacks_paths_and_umlauts(tmp_path):
    log = EventLog(tmp_path, rank=0)
    log.write("odd", loss=float("nan"), norms={"max": float("inf"), 1: (1.0, float("-inf"))}, path=Path("a/ü.png"))
    (line,) = read(log)
    assert line["loss"] == "nan"
    assert line["norms"] == {"max": "inf", "1": [1.0, "-inf"]}
    assert Path(line["path"]) == Path("a/ü.png")


def test_a_full_disk_ends_nothing(tmp_path):
    log = EventLog(tmp_path, rank=0)
    real, log._file = log._file, FullDisk()
    log.write("step", step=1)
    log._file = real
    log.write("step", step=2)
    assert [line["step"] for line in read(log)] == [2]


class FullDisk:
    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")
