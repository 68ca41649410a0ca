"""Who draws which class pictures, and what is not kept: without processes, on a model that counts as two."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from library.config.settings import Settings
from library.data.class_images import ClassImages, name_of
from library.errors import UserError
from library.families.sd import StableDiffusion
from library.train import class_images
from library.train.class_images import draw_class_images
from library.train.signals import StopRequest
from library.types import Parts
from tests.tiny_models import tiny_sd1_parts


class Record:
    """Remembers the events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.events = SimpleNamespace(write=self.report, close=lambda: None)

    def report(self, event: str, **facts: Any) -> None:
        self.told.append((event, facts))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_images, "STEPS", 2)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return tiny_sd1_parts()


def wanted(folder: Path, missing: set[int], count: int = 7) -> ClassImages:
    return ClassImages(folder, "a frog", (64, 64), 2, tuple(range(1, count + 1)), frozenset(missing))


def draw(parts: Parts, folders: list[list[ClassImages]], rank: int = 0, world_size: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """What is reported of drawing for datasets with these folders."""
    plan = SimpleNamespace(
        prepared=[SimpleNamespace(class_images=images) for images in folders],
        family=StableDiffusion(),
        seed=1,
        settings=Settings(),
        length=SimpleNamespace(first_step=1),
    )
    runtime = SimpleNamespace(
        rank=rank,
        world_size=world_size,
        is_main=rank == 0,
        failing_together=contextlib.nullcontext,
        autocast=contextlib.nullcontext,
        stop_request=StopRequest(),
    )
    record = Record()
    try:
        draw_class_images(plan, parts, runtime, record)  # type: ignore[arg-type]
    finally:
        told = record.told
    return told


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem[-5:]) for path in folder.iterdir()) if folder.exists() else []


def test_processes_take_turns(parts, tmp_path):
    everything = set(range(1, 8))
    for rank, own in enumerate(([1, 2, 5, 6], [3, 4, 7])):
        folder = tmp_path / str(rank)
        told = draw(parts, [[wanted(folder, everything)]], rank, 2)
        assert numbers(folder) == own
        assert [(event, facts["count"]) for event, facts in told] == [("class_images_drawn", 7)]


def test_a_batch_is_the_same_with_some_of_it_there(parts, tmp_path):
    draw(parts, [[wanted(tmp_path / "all", set(range(1, 8)))]])
    draw(parts, [[wanted(tmp_path / "some", {2, 7})]])
    assert numbers(tmp_path / "some") == [2, 7]
    for number in (2, 7):
        assert (tmp_path / "some" / name_of(number)).read_bytes() == (tmp_path / "all" / name_of(number)).read_bytes()


def test_a_folder_of_two_datasets_is_drawn_once(parts, tmp_path):
    folder = tmp_path / "shared"
    told = draw(parts, [[wanted(folder, {1, 2}, 2)], [wanted(tmp_path / "x" / ".." / "shared", {1, 2}, 2)]])
    assert [facts["count"] for _, facts in told] == [2]
    assert numbers(folder) == [1, 2]


def test_nothing_to_draw_is_no_event(parts):
    assert draw(parts, [[], []]) == []


def test_a_picture_that_is_not_finite_is_not_kept(tmp_path):
    broken = tiny_sd1_parts()
    with torch.no_grad():
        broken.vae.decoder.conv_out.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="class_image_00001.png cannot be drawn: .* NaN .*bf16"):
        draw(broken, [[wanted(tmp_path / "frogs", {1, 2}, 2)]])
    assert numbers(tmp_path / "frogs") == []


def test_a_folder_that_cannot_be_written(parts, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="class_image_00001.png cannot be written"):
        draw(parts, [[wanted(tmp_path / "file" / "frogs", {1}, 1)]])
