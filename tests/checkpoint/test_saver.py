"""The saver over fake weights: nobody's file is lost, old files go after the new ones are there, failures end nothing."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from library.checkpoint import files, saver
from library.checkpoint.ledger import STATE_FILE, Ledger, inherited_entries
from library.checkpoint.naming import Kind, RunLength, SavePoint
from library.checkpoint.saver import Saver, Sources, save_dtype
from library.checkpoint.temporary import remove_leftovers
from library.config.options import SavingOptions

Killer = Callable[[int, Callable[[], None]], bool]
LENGTH = RunLength(first_step=1, last_step=40, steps_per_epoch=10)


class Run:
    """A run in `folder` whose weights are its name and the step."""

    def __init__(self, folder: Path, name: str, lineage: str | None = None, is_main: bool = True, uploads: Any = None,
                 kinds: tuple[Kind, ...] = ("weights",), **options: Any):  # fmt: skip
        self.name, self.folder, self.events = name, folder, []
        self.failing: Exception | None = None
        self.nan = False
        lineage = lineage or f"of {name}"
        self.ledger = Ledger(folder / "runs" / name, folder, lineage, inherited_entries(folder / "runs", lineage))
        sources = Sources(
            dict.fromkeys(kinds, self._write_weights), self._write_state,
            lambda point, kind: {"ss_steps": f"{point.step}{' words' if kind == 'words' else ''}"}, lambda: self.nan,
        )  # fmt: skip
        settings = SavingOptions(**{"output_dir": str(folder), "output_name": "frog", "save_state": True, **options})
        room: dict[Kind, int] = {"weights": 10, "words": 10, "state": 100}
        self.saver = Saver(settings, LENGTH, self.ledger, sources, self._report, room, is_main, uploads)

    def _write_weights(self, path: Path, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
        path.write_text(f"{self.name} {metadata['ss_steps']}", encoding="utf-8")
        if self.failing:
            raise self.failing

    def _write_state(self, folder: Path, point: SavePoint) -> None:
        (folder / "model.safetensors").write_text(f"{self.name} {point.step}", encoding="utf-8")
        (folder / STATE_FILE).write_text(f"{self.name} {point.step} {point.epoch}", encoding="utf-8")

    def _report(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    def told(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.events if name == event]

    def steps(self, first: int, last: int) -> Run:
        for step in range(first, last + 1):
            self.saver.save_step(step)
        return self


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "runs")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_whole_run(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", save_every_n_steps=15, save_every_n_epochs=2).steps(1, 40)
    assert names(tmp_path) == [
        "frog-000002-state", "frog-000002.safetensors", "frog-state",
        "frog-step00000015-state", "frog-step00000015.safetensors", "frog-step00000030-state", "frog-step00000030.safetensors",
        "frog.safetensors",
    ]  # fmt: skip
    assert read(tmp_path / "frog-000002.safetensors") == "one 20"
    assert read(tmp_path / "frog-state" / STATE_FILE) == "one 40 4"
    assert {event for event, _ in run.events} == {"saved"}
    assert [entry.path for entry in run.ledger.entries("weights", "step")] == [
        "frog-step00000015.safetensors", "frog-step00000030.safetensors",
    ]  # fmt: skip


def test_old_files_go_after_both_new_ones_are_there(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", save_every_n_steps=10, save_last_n_steps=5).steps(1, 25)
    assert names(tmp_path) == ["frog-step00000020-state", "frog-step00000020.safetensors"]
    order = [(event, facts["kind"]) for event, facts in run.events]
    assert order == [("saved", "weights"), ("saved", "state")] * 2 + [("removed", "weights"), ("removed", "state")]
    assert len(run.ledger.entries()) == 2


def test_words_are_saved_beside_the_weights_and_go_with_them(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", kinds=("weights", "words"), save_every_n_steps=10, save_last_n_steps=5, save_state=False).steps(1, 25)
    assert names(tmp_path) == ["frog-step00000020-words.safetensors", "frog-step00000020.safetensors"]
    assert read(tmp_path / "frog-step00000020-words.safetensors") == "one 20 words"
    order = [(event, facts["kind"]) for event, facts in run.events]
    assert order == [("saved", "weights"), ("saved", "words")] * 2 + [("removed", "weights"), ("removed", "words")]


def test_as_long_as_the_words_cannot_be_saved_the_old_pair_stays(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", kinds=("weights", "words"), save_every_n_steps=10, save_last_n_steps=5, save_state=False).steps(1, 19)
    run.saver.expected_bytes["words"] = 2**60
    assert not run.saver.save_step(20)
    assert names(tmp_path) == [
        "frog-step00000010-words.safetensors", "frog-step00000010.safetensors", "frog-step00000020.safetensors",
    ]  # fmt: skip
    run.saver.expected_bytes["words"] = 10
    assert run.saver.save_interrupted(20)
    assert names(tmp_path)[:2] == ["frog-step00000020-state", "frog-step00000020-words.safetensors"]
    assert "frog-step00000010.safetensors" not in names(tmp_path)


def test_retention_after_the_interval_changed_leaves_no_orphans(tmp_path: Path) -> None:
    first = Run(tmp_path, "one", save_every_n_steps=3).steps(1, 12)
    Run(tmp_path, "two", first.ledger.lineage, save_every_n_steps=10, save_last_n_steps=10).steps(13, 30)
    weights = [name for name in names(tmp_path) if "state" not in name]
    assert weights == ["frog-step00000020.safetensors", "frog-step00000030.safetensors"]


def test_retention_leaves_alone_what_is_later_and_what_is_not_ours(tmp_path: Path) -> None:
    first = Run(tmp_path, "one", save_every_n_steps=10, save_state=False).steps(1, 39)
    (tmp_path / "frog-step00000004.safetensors").write_text("somebody's", encoding="utf-8")
    (tmp_path / "frog-step00000010.safetensors").write_text("somebody put another here", encoding="utf-8")
    Run(tmp_path, "two", first.ledger.lineage, save_every_n_steps=10, save_last_n_steps=5, save_state=False).steps(11, 20)
    assert names(tmp_path) == [f"frog-step{step:08d}.safetensors" for step in (4, 10, 20, 30)]
    assert read(tmp_path / "frog-step00000020.safetensors") == "two 20"


def test_another_runs_output_is_set_aside_and_told(tmp_path: Path) -> None:
    Run(tmp_path, "one").steps(1, 40)
    run = Run(tmp_path, "two").steps(1, 40)
    assert read(tmp_path / "frog.safetensors") == "two 40"
    assert read(tmp_path / "frog-state" / STATE_FILE) == "two 40 4"
    aside = [Path(facts["now"]) for facts in run.told("set_aside")]
    assert [read(aside[0]), read(aside[1] / STATE_FILE)] == ["one 40", "one 40 4"]
    assert len(names(tmp_path)) == 4


def test_a_resumed_run_replaces_what_its_forerunners_wrote(tmp_path: Path) -> None:
    first = Run(tmp_path, "one", save_every_n_steps=10).steps(1, 30)
    Run(tmp_path, "two", first.ledger.lineage, save_every_n_steps=10).steps(11, 20)
    third = Run(tmp_path, "three", first.ledger.lineage, save_every_n_steps=10).steps(11, 40)  # from the same state as "two"
    assert third.told("set_aside") == []
    assert [name for name in names(tmp_path) if "20" in name] == ["frog-step00000020-state", "frog-step00000020.safetensors"]
    assert read(tmp_path / "frog-step00000020-state" / STATE_FILE) == "three 20 2"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("writer failed"), KeyError("x")])
def test_a_failed_save_is_told_and_the_next_one_works(tmp_path: Path, error: Exception) -> None:
    run = Run(tmp_path, "one", save_every_n_steps=10, save_last_n_steps=5, save_state=False).steps(1, 10)
    run.failing = error
    assert run.saver.save_step(20) is False
    assert names(tmp_path) == ["frog-step00000010.safetensors"]  # the old one stays as long as there is no new one
    assert str(error) in run.told("save_failed")[0]["reason"]
    run.failing = None
    assert run.saver.save_step(30) is True
    assert names(tmp_path) == ["frog-step00000030.safetensors"]


def test_no_room_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, "one")
    monkeypatch.setattr(files, "free_bytes", lambda folder: 50)
    assert run.saver.save_step(40) is False
    assert [facts["kind"] for facts in run.told("save_failed")] == ["state"]
    assert "no room on the disk" in run.told("save_failed")[0]["reason"]
    assert names(tmp_path) == ["frog.safetensors"]


def test_nan_is_never_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, "one")
    run.nan = True
    assert run.saver.save_step(40) is False
    assert names(tmp_path) == []
    assert run.told("save_refused") == [{"step": 40, "epoch": 4, "reason": "the weights are not finite numbers"}]


def test_an_interruption_saves_weights_and_state_once(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", save_every_n_steps=10, save_state=False).steps(1, 10)
    assert run.saver.save_interrupted(10)
    assert [facts["kind"] for facts in run.told("saved")] == ["weights", "state"]
    assert run.saver.save_interrupted(13)
    assert "frog-step00000013-state" in names(tmp_path)


def test_the_best_weights_have_one_file_that_later_ones_replace(tmp_path: Path) -> None:
    (tmp_path / "frog-best.safetensors").write_text("a stranger's", encoding="utf-8")
    run = Run(tmp_path, "one", save_every_n_steps=10, save_last_n_steps=5, save_state=False)
    for best, last in ((3, 10), (15, 20)):
        assert run.saver.save_best(best)
        run.steps(last, last)
        assert read(tmp_path / "frog-best.safetensors") == f"one {best}"
    assert [facts["step"] for facts in run.told("saved")] == [3, 10, 15, 20]
    assert len(run.told("set_aside")) == 1
    assert [entry.step for entry in run.ledger.entries("weights", "best")] == [15]
    resumed = Run(tmp_path, "two", lineage="of one")
    assert resumed.saver.save_best(25)
    assert read(tmp_path / "frog-best.safetensors") == "two 25"
    assert resumed.told("set_aside") == []
    assert len(list(tmp_path.glob("frog-best*"))) == 2


def test_a_run_that_ends_early_has_its_final_files(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", save_every_n_epochs=1, save_state=False).steps(1, 19)
    run.saver.end_at(20)
    assert run.saver.due(20)
    run.saver.save_step(20)
    assert names(tmp_path) == ["frog-000001.safetensors", "frog.safetensors"]  # as of a run of 20 steps
    assert read(tmp_path / "frog.safetensors") == "one 20"


def test_other_processes_touch_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", is_main=False)
    assert run.saver.due(40)
    assert run.saver.save_step(40)
    assert names(tmp_path) == []


def test_a_removal_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "in use")

    run = Run(tmp_path, "one", save_every_n_steps=10, save_last_n_steps=5, save_state=False)
    with monkeypatch.context() as patch:
        patch.setattr(saver, "remove", refuse)
        run.steps(1, 20)
    assert run.told("remove_failed")[0]["path"].endswith("frog-step00000010.safetensors")
    run.steps(21, 30)
    assert names(tmp_path) == ["frog-step00000030.safetensors"]


def test_precisions() -> None:
    assert [save_dtype(name) for name in (None, "float", "fp16", "bf16")] == [None, torch.float32, torch.float16, torch.bfloat16]


def test_a_ledger_that_cannot_be_read_makes_its_files_strangers(tmp_path: Path) -> None:
    for content in ("", "[]", '{"version": 1, "lineage": "x", "files": [{"path": 1}]}'):
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / "files.json").write_text(content, encoding="utf-8")
        assert inherited_entries(tmp_path, "x") == []


def test_a_copied_folder_is_still_ours(tmp_path: Path) -> None:
    first = Run(tmp_path / "here", "one").steps(1, 40)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Run(tmp_path / "there", "two", first.ledger.lineage)
    assert moved.ledger.owns(tmp_path / "there" / "frog.safetensors")
    assert moved.ledger.owns(tmp_path / "there" / "frog-state")


def whole(folder: Path) -> list[str]:
    """What all files of the folder hold, after checking that none is torn."""
    remove_leftovers(folder)
    contents = []
    for path in sorted(folder.glob("frog*")):
        content = read(path / STATE_FILE) if path.is_dir() else read(path)
        assert content in {"one 40", "two 40", "one 40 4", "two 40 4"}, path
        if path.is_dir():
            assert read(path / "model.safetensors") == content[:6]
        contents.append(content)
    return contents


@pytest.mark.parametrize("resumed", [True, False])
def test_killed_at_any_instant_old_or_new_is_there_and_strangers_always(
    tmp_path: Path, killed_before: Killer, resumed: bool
) -> None:
    first = Run(tmp_path / "before", "one").steps(40, 40)
    for dealing in range(1, 200):
        folder = tmp_path / str(dealing)
        shutil.copytree(tmp_path / "before", folder)
        second = Run(folder, "two", first.ledger.lineage if resumed else None)
        killed = killed_before(dealing, lambda run=second: run.saver.save_step(40))
        contents = whole(folder)
        assert {"one 40", "two 40"} & set(contents)
        assert {"one 40 4", "two 40 4"} & set(contents)
        if not resumed:
            assert {"one 40", "one 40 4"} <= set(contents)
        if not killed:
            assert contents == ["two 40 4", "two 40"] if resumed else len(contents) == 4
            break
    assert dealing > 20


def test_killed_just_after_the_rename_the_file_is_known_as_ours(tmp_path: Path, killed_before: Killer) -> None:
    seen = False
    for dealing in range(1, 200):
        folder = tmp_path / str(dealing)
        run = Run(folder, "one", save_state=False)
        killed = killed_before(dealing, lambda run=run: run.saver.save_step(40))
        again = Run(folder, "two", run.ledger.lineage, save_state=False)
        if (folder / "frog.safetensors").exists():
            seen = True
            assert again.ledger.owns(folder / "frog.safetensors")
        if not killed:
            break
    assert seen


class SlowUploads:
    """Uploads of which some are not done until the end, and one never."""

    def __init__(self, with_states: bool, never: str = ""):
        self.with_states, self.in_background, self.never = with_states, True, never
        self.added: list[str] = []
        self.done = False

    def add(self, path: Path) -> None:
        assert path.exists()
        self.added.append(path.name)

    def needs(self, path: Path) -> bool:
        return path.name == self.never or (path.name in self.added and not self.done)

    def finish(self) -> None:
        self.done = True


@pytest.mark.parametrize("with_states", [False, True])
def test_what_is_saved_is_uploaded(tmp_path: Path, with_states: bool) -> None:
    uploads = SlowUploads(with_states)
    Run(tmp_path, "one", uploads=uploads, save_every_n_steps=5).steps(1, 10)
    expected = ["frog-step00000005.safetensors", "frog-step00000005-state", "frog-step00000010.safetensors", "frog-step00000010-state"]
    assert uploads.added == [name for name in expected if with_states or not name.endswith("-state")]


def test_retention_waits_for_uploads_and_leaves_what_never_arrived(tmp_path: Path) -> None:
    uploads = SlowUploads(with_states=False, never="frog-step00000010.safetensors")
    run = Run(tmp_path, "one", uploads=uploads, save_every_n_steps=5, save_last_n_steps=1, save_state=False).steps(1, 20)
    steps = [f"frog-step{step:08d}.safetensors" for step in (5, 10, 15, 20)]
    assert names(tmp_path) == steps
    run.saver.finish()
    assert names(tmp_path) == [steps[1], steps[3]]
