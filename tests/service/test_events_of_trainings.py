"""From events.jsonl to progress, while the file grows, is cut, and begins anew."""
from __future__ import annotations

import json
from pathlib import Path

from service.events import EventFile, TrainingProgress


def lines(*events: dict[str, object]) -> str:
    return "".join(json.dumps({"v": 1, **event}) + "\n" for event in events)


def add(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_a_line_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    assert file.read() == []
    add(path, '{"event": "start"')
    assert file.read() == []
    add(path, '}\n{"broken\n[1]\n{"event": "end"}\n')
    assert [event["event"] for event in file.read()] == ["start", "end"]
    assert file.read() == []


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    progress = TrainingProgress()
    assert not progress.update(None)
    add(path, lines({"event": "start", "step": 0, "last_step": 100}))
    assert progress.update(path)
    assert progress.now == {"step": 0, "total_steps": 100}
    add(path, lines(*({"event": "step", "step": n, "time": 1000 + n / 2, "loss": n / 10, "epoch": 1} for n in range(1, 31))))
    assert progress.update(path)
    now = progress.now
    assert (now["step"], now["loss"], now["speed"], now["eta_s"]) == (30, 3.0, 2.0, 35.0)
    assert not progress.update(path)
    add(path, lines({"event": "step", "step": 31, "time": 1015.5, "loss": 3.1, "epoch": 1, "gpu_memory_gib": 7.25}))
    progress.update(path)
    assert progress.now["gpu_memory_gib"] == 7.25


def test_the_speed_is_that_of_the_last_steps(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    times = [100.0 * n for n in range(1, 11)] + [1000.0 + n for n in range(1, 21)]
    add(path, lines({"event": "start", "step": 0, "last_step": 40}))
    add(path, lines(*({"event": "step", "step": n, "time": time, "loss": 0} for n, time in enumerate(times, 1))))
    progress = TrainingProgress()
    progress.update(path)
    assert (progress.now["speed"], progress.now["eta_s"]) == (1.0, 10.0)


def test_a_resumed_training_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    progress = TrainingProgress()
    add(first, lines({"event": "start", "step": 0, "last_step": 9}, {"event": "step", "step": 5, "time": 1.0, "loss": 1}))
    progress.update(first)
    add(second, lines({"event": "start", "step": 3, "last_step": 9}, {"event": "step", "step": 4, "time": 900.0, "loss": 1}))
    progress.update(second)
    assert (progress.now["step"], progress.now["total_steps"], "speed" in progress.now) == (4, 9, False)


def test_numbers_that_are_none_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    add(path, lines({"event": "step", "step": "x", "time": 1}, {"event": "step", "step": 1, "time": 1.0, "loss": "nan"}, {"event": "sampled"}))
    progress = TrainingProgress()
    progress.update(path)
    assert (progress.now["step"], progress.now["loss"], progress.now["samples"]) == (1, "nan", 0)
