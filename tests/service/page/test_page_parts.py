"""What the page makes of events, names of pictures, times and sizes; and that its scripts keep to its policy."""
from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from page_world import write_events

from service.page import loss
from service.page.form import GROUPS, HINTS, LABELS, PRESETS, read_form, with_preset
from service.page.loss import LossFollower, Point, all_points, merged, thinned
from service.page.rendering import FOLDER, STATIC, duration, figure, moment, size
from service.page.samples import gallery, read_name
from service.training import from_console
from service.training.job_folder import JobFolder


def test_a_resumed_run_does_again_what_it_had_not_saved(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    write_events(folder.output / "model-runs" / "20260101000000" / "events.jsonl", range(1, 11))
    write_events(folder.output / "model-runs" / "20260102000000" / "events.jsonl", range(6, 9))
    assert [point.step for point in all_points(folder)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_points_are_read_as_they_come(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    following = LossFollower(folder, after_step=3)
    assert following.read() == []
    file = folder.output / "model-runs" / "20260101000000" / "events.jsonl"
    write_events(file, range(1, 6))
    assert [point.step for point in following.read()] == [4, 5]
    with file.open("a", encoding="utf-8") as more:
        more.write('{"event": "step", "step": 6, "loss": NaN, "lr": null}\n{"event": "step", "step": "7"}\n{"event": "ste')
    assert following.read() == [Point(6, None, None)]
    write_events(folder.output / "model-runs" / "20260102000000" / "events.jsonl", range(2, 4))
    assert [point.step for point in following.read()] == [2, 3]  # it goes back, and the chart with it


def test_many_points_are_averaged_to_few() -> None:
    points = [Point(step, float(step), 0.1) for step in range(1, 10)] + [Point(10, None, 0.2)]
    assert thinned(points, 10) == points
    few = thinned(points, 4)
    assert [point.step for point in few] == [3, 6, 9, 10]
    assert [point.loss for point in few] == [2.0, 5.0, 8.0, None]


def test_merging_keeps_steps_in_order() -> None:
    points = merged([Point(1, 1.0, None), Point(2, 1.0, None)], [Point(2, 3.0, None), Point(1, 4.0, None), Point(2, 5.0, None)])
    assert points == [Point(1, 4.0, None), Point(2, 5.0, None)]
    assert loss.as_columns(points) == {"step": [1, 2], "loss": [4.0, 5.0], "rate": [None, None]}


def test_pictures_stand_by_prompt_and_time(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.samples.mkdir(parents=True)
    names = [
        "model_e000000_00_20260102030405_7.png", "model_000500_00_20260102030405_7.png", "model_000500_00_20260102040405_7.png",
        "model_000500_01_20260102030405_8.png", "model_e000002_01_20260102030405_8.png", "model_sheet_20260102030907.png", "other.png",
    ]  # fmt: skip
    for name in names:
        (folder.samples / name).touch()
    found = gallery(folder, {"sample_prompt": "a frog"})
    assert found.columns == ("before the first step", "step 500", "epoch 2")
    assert [[picture and picture.name for picture in row.pictures] for row in found.rows] == [
        [names[0], names[2], None],
        [None, names[3], names[4]],
    ]
    assert [(row.prompt, row.seed) for row in found.rows] == [("a frog", 7), ("a frog", 8)] and found.count == 4


@pytest.mark.parametrize("name", ["../model_000500_00_20260102030405_7.png", "model_000500_00_20260102030405_7.png/..", "model_5_0.png", ""])
def test_other_names_are_no_pictures(name: str) -> None:
    assert read_name(name) is None


def test_times_and_sizes_for_people() -> None:
    assert [duration(seconds) for seconds in (None, 4.4, 75, 1500, 3900, 3 * 86400)] == ["–", "4 s", "1 min 15 s", "25 min", "1 h 05 min", "3 days"]
    assert [size(count) for count in (None, 0, 1023, 1024, 5 * 2**30)] == ["–", "0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [figure(value) for value in (None, True, 12345, 0.00001234, "x")] == ["–", "–", "12,345", "1.234e-05", "–"]
    assert "ago" in moment(time.time() - 90) and "in 59 min" in moment(time.time() + 3590) and moment(None) == "–"


def test_every_input_has_a_place_and_words() -> None:
    names = {field.name for field in from_console.FIELDS}
    assert names == set(LABELS)
    assert set(HINTS) <= names and {name for group in GROUPS.values() for name in group} <= names


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_trained(name: str) -> None:
    inputs = with_preset({"name": "a", "instance_prompt": "a sks frog", "class_prompt": "a frog"}, name)
    request = from_console.read(inputs)
    assert request.method == PRESETS[name].values["method"]
    assert request.max_train_steps == PRESETS[name].values["max_train_steps"]


def test_what_is_written_becomes_inputs() -> None:
    written = {"name": "a", "resolution": "", "center_crop": "on", "csrf": "x", "advanced.flip_aug": "true", "advanced.clip_skip": "2",
               "advanced.noise_offset": "", "advanced.loss_type": "huber", "advanced.evil": "x"}  # fmt: skip
    inputs = read_form(written)
    assert inputs["name"] == "a" and inputs["center_crop"] is True and inputs["scale_lr"] is False
    assert "resolution" not in inputs and "csrf" not in inputs
    assert inputs["advanced"] == {"flip_aug": True, "clip_skip": 2, "loss_type": "huber", "evil": "x"}  # the reader refuses the last


def test_scripts_and_templates_keep_to_the_policy() -> None:
    """No text becomes a program, none becomes HTML in a script of ours, and nothing is loaded from elsewhere."""
    for path in STATIC.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text), path
    for path in (FOLDER / "templates").rglob("*.jinja"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape false|<style|\sstyle=|\son[a-z]+=|javascript:|https?://", text), path


def test_what_is_vendored_has_its_licence() -> None:
    vendored = {path.name.split(".min.")[0] for path in (STATIC / "vendor").iterdir() if ".min." in path.name}
    assert vendored == {"htmx-2.0.11", "htmx-ext-sse-2.2.4", "uplot-1.6.32"}
    for name in vendored:
        assert "WARRANT" in (STATIC / "vendor" / f"{name}.LICENSE").read_text(encoding="utf-8").upper()
